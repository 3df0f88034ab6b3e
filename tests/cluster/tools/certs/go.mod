module serin.dev/tools/certs

go 1.24.0
