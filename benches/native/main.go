// Command native is the floor that pods of wick are compared with: a static program that does
// what their guest does, under runc.
//
//	native serve   answer each request on :8080 with a short text
//	native exit    end at once
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: native serve | exit")
	}
	switch os.Args[1] {
	case "serve":
		handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "1") }
		log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(handler)))
	case "exit":
	default:
		log.Fatalf("there is no %q", os.Args[1])
	}
}
