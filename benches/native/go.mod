module wick.dev/benches/native

go 1.26
