module waybill/contracts

go 1.26.5
