// A stand-in for the application in the cluster's contract tests: it answers with what it was sent.
//
//	/status/N  the body that came, with status N
//	/crash     no answer: it ends
//	/readyz    200, or 503 with words if it was started as "unready"
//	else       200 and the body that came
//
// Started as "crash", it says why and ends.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	mode := strings.Join(os.Args[1:], " ")
	if mode == "crash" {
		log.SetFlags(0)
		log.Println("loading the model")
		log.Fatalln("the model does not load: bad protobuf")
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		status := http.StatusOK
		if text, ok := strings.CutPrefix(r.URL.Path, "/status/"); ok {
			status, _ = strconv.Atoi(text)
		}
		if mode == "unready" && r.URL.Path == "/readyz" {
			status, body = http.StatusServiceUnavailable, []byte("the self-test failed")
		}
		if r.URL.Path == "/crash" {
			log.Fatalln("out of memory in layer 7")
		}
		if r.URL.Path == "/drain" {
			time.Sleep(time.Second)
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Release", os.Getenv("SHIPMATE_RELEASE"))
		w.WriteHeader(status)
		w.Write(body)
	})
	log.Fatalln(http.ListenAndServe(":8000", nil))
}
