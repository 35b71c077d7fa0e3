module waybill/tests/truth

go 1.26.5

require waybill/contracts v0.0.0

replace waybill/contracts => ../../contracts
