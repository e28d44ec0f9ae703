module shipmate.dev/tests/answering

go 1.24.0
