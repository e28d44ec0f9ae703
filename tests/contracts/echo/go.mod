module shipmate.dev/echo

go 1.24
