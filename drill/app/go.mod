module shipmate.dev/drill/app

go 1.24.0
