module waybill/tests/truth

go 1.26.5

require waybill/contracts v0.0.0

require (
	github.com/bojanz/currency v1.4.2 // indirect
	github.com/cockroachdb/apd/v3 v3.2.1 // indirect
)

replace waybill/contracts => ../../contracts
