// A server for tests of the cluster, run in a pod: says who it is, tries to reach other addresses, and drains.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

func main() {
	var draining atomic.Bool
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) {
		if draining.Load() {
			answer.Header().Set("Connection", "close")
		}
		fmt.Fprintf(answer, "%s in %s\n", os.Getenv("ANSWER"), os.Getenv("HOSTNAME"))
	})
	http.HandleFunc("/readyz", func(answer http.ResponseWriter, _ *http.Request) {
		if draining.Load() {
			answer.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/drain", func(http.ResponseWriter, *http.Request) {
		draining.Store(true)
		time.Sleep(4 * time.Second)
	})
	http.HandleFunc("/dial", func(answer http.ResponseWriter, request *http.Request) {
		connection, err := net.DialTimeout("tcp", request.URL.Query().Get("address"), 2*time.Second)
		if err != nil {
			fmt.Fprintln(answer, err)
			return
		}
		connection.Close()
		fmt.Fprintln(answer, "connected")
	})
	fmt.Println("listening")
	if err := http.ListenAndServe(":8000", nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
