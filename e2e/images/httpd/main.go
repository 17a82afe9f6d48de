// Command httpd is what the cluster's tests run in ordinary containers: a small HTTP server,
// clients that show from inside a pod what the pod can reach, and two that use its volumes.
//
//	httpd serve [ADDRESS]     answer every request with $ANSWER, on :8080 if nothing is said
//	httpd relay ADDRESS URL   answer every request with what URL answers
//	httpd get URL             print the answer's body
//	httpd api                 print the API server's version, with the pod's own account
//	httpd cat PATH            print a file, as soon as it is there
//	httpd write PATH TEXT     write a file
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

// account is where Kubernetes mounts a pod's token and the cluster's certificate.
const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

// A client tries again until this has passed: a Service may know its pods a moment later
// than the test does.
const patience = 20 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "httpd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve(":8080")
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 3 && args[0] == "relay":
		return relay(args[1], args[2])
	case len(args) == 2 && args[0] == "cat":
		return cat(args[1])
	case len(args) == 3 && args[0] == "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	case len(args) == 2 && args[0] == "get":
		return get(http.DefaultTransport, args[1], "")
	case len(args) == 1 && args[0] == "api":
		return api()
	}
	return fmt.Errorf("usage: httpd serve [ADDRESS] | relay ADDRESS URL | get URL | api | cat PATH | write PATH TEXT")
}

func serve(address string) error {
	answer := os.Getenv("ANSWER")
	fmt.Println("listening on", address)
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path)
		fmt.Fprint(w, answer)
	}))
}

func relay(address, target string) error {
	to, err := url.Parse(target)
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, httputil.NewSingleHostReverseProxy(to))
}

// cat waits for the file: whoever writes it starts at the same time.
func cat(path string) error {
	deadline := time.Now().Add(patience)
	for {
		text, err := os.ReadFile(path)
		if err == nil {
			fmt.Println(string(text))
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// api goes through the Service's name, so it needs DNS, the Service and the account.
func api() error {
	certificate, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return get(transport, "https://kubernetes.default.svc.cluster.local/version", string(token))
}

func get(transport http.RoundTripper, url, token string) error {
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	deadline := time.Now().Add(patience)
	for {
		body, err := try(client, url, token)
		if err == nil {
			fmt.Println(body)
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func try(client *http.Client, url, token string) (string, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, answer.Status, body)
	}
	return string(body), err
}
