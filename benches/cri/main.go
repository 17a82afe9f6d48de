// Command cri starts pods through containerd's CRI, as a kubelet does, and prints how long each
// step took: one JSON line a pod.
//
//	cri -endpoint SOCKET -cgroup PATH -cases FILE -rounds N   start, ask, remove; cases take turns
//	cri -endpoint SOCKET -cgroup PATH -cases FILE -hold N     start N pods a case, keep them until
//	                                                          standard input ends, then remove them
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// Longest time for one call of the CRI.
	callTimeout = 60 * time.Second
	// Longest wait for the first correct answer of a pod.
	answerTimeout = 30 * time.Second
	// Pause between two attempts to reach a pod that does not answer yet.
	retryPause = time.Millisecond
)

// Case is a kind of pod to compare.
type Case struct {
	Name        string            `json:"name"`
	Handler     string            `json:"handler"`
	Image       string            `json:"image"`
	Command     []string          `json:"command"`
	Annotations map[string]string `json:"annotations"`
	Port        int               `json:"port"`
	// The request that proves that the pod works: its path, its body (GET if empty), and a
	// text that the correct answer contains.
	Path  string `json:"path"`
	Body  string `json:"body"`
	Wants string `json:"wants"`
}

// Result is what one pod took, in milliseconds.
type Result struct {
	Case        string  `json:"case"`
	Round       int     `json:"round"`
	IP          string  `json:"ip"`
	Sandbox     string  `json:"sandbox"`
	Container   string  `json:"container"`
	SandboxMs   float64 `json:"sandbox_ms"`
	CreateMs    float64 `json:"create_ms"`
	StartMs     float64 `json:"start_ms"`
	FirstAnswer float64 `json:"first_answer_ms"`
}

type runner struct {
	runtime cri.RuntimeServiceClient
	client  *http.Client
	cgroup  string
}

func main() {
	endpoint := flag.String("endpoint", "/run/containerd/containerd.sock", "containerd's socket")
	cgroup := flag.String("cgroup", "/wick-bench", "the parent of the pods' control groups")
	cases := flag.String("cases", "", "a JSON file with the kinds of pods")
	rounds := flag.Int("rounds", 0, "pods of each kind, one after another")
	hold := flag.Int("hold", 0, "pods of each kind, all at once, until standard input ends")
	flag.Parse()
	if err := run(*endpoint, *cgroup, *cases, *rounds, *hold); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func run(endpoint, cgroup, casesFile string, rounds, hold int) error {
	text, err := os.ReadFile(casesFile)
	if err != nil {
		return err
	}
	var cases []Case
	if err := json.Unmarshal(text, &cases); err != nil {
		return fmt.Errorf("%s: %w", casesFile, err)
	}
	conn, err := grpc.NewClient("unix://"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	// A fresh connection for each request: one that is kept belongs to a pod that is gone.
	transport := &http.Transport{DisableKeepAlives: true}
	r := &runner{cri.NewRuntimeServiceClient(conn), &http.Client{Transport: transport}, cgroup}
	out := json.NewEncoder(os.Stdout)
	if hold > 0 {
		return r.hold(cases, hold, out)
	}
	for round := range rounds {
		for _, c := range cases {
			result, err := r.start(c, round)
			if err == nil {
				err = out.Encode(result)
			}
			if removed := r.remove(result.Sandbox); err == nil {
				err = removed
			}
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", c.Name, round, err)
			}
		}
	}
	return nil
}

// hold keeps pods until standard input ends.
func (r *runner) hold(cases []Case, count int, out *json.Encoder) (err error) {
	var sandboxes []string
	defer func() {
		for _, sandbox := range sandboxes {
			if removed := r.remove(sandbox); err == nil {
				err = removed
			}
		}
	}()
	for _, c := range cases {
		for index := range count {
			result, err := r.start(c, index)
			sandboxes = append(sandboxes, result.Sandbox)
			if err != nil {
				return fmt.Errorf("%s, pod %d: %w", c.Name, index, err)
			}
			if err := out.Encode(result); err != nil {
				return err
			}
		}
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// start brings a pod up and waits for its first correct answer.
func (r *runner) start(c Case, round int) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	result := Result{Case: c.Name, Round: round}
	name := fmt.Sprintf("bench-%s-%d-%d", c.Name, round, time.Now().UnixNano())
	sandbox := &cri.PodSandboxConfig{
		Metadata:    &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "bench"},
		Annotations: c.Annotations,
		Linux:       &cri.LinuxPodSandboxConfig{CgroupParent: r.cgroup + "/pods"},
	}
	begin := time.Now()
	ran, err := r.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: c.Handler})
	if err != nil {
		return result, fmt.Errorf("RunPodSandbox: %w", err)
	}
	result.Sandbox, result.SandboxMs = ran.PodSandboxId, since(begin)
	step := time.Now()
	created, err := r.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: ran.PodSandboxId,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"},
			Image:    &cri.ImageSpec{Image: c.Image},
			Command:  c.Command,
			// What a kubelet gives a pod without requests.
			Linux: &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 1000}},
		},
		SandboxConfig: sandbox,
	})
	if err != nil {
		return result, fmt.Errorf("CreateContainer: %w", err)
	}
	result.Container, result.CreateMs = created.ContainerId, since(step)
	step = time.Now()
	if _, err := r.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return result, fmt.Errorf("StartContainer: %w", err)
	}
	result.StartMs = since(step)
	step = time.Now()
	status, err := r.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: ran.PodSandboxId})
	if err != nil {
		return result, fmt.Errorf("PodSandboxStatus: %w", err)
	}
	result.IP = status.Status.GetNetwork().GetIp()
	if err := r.ask(c, result.IP); err != nil {
		return result, err
	}
	result.FirstAnswer = since(step)
	return result, nil
}

// ask repeats the request until the answer is correct.
func (r *runner) ask(c Case, ip string) error {
	if c.Port == 0 {
		return nil
	}
	url := "http://" + net.JoinHostPort(ip, fmt.Sprint(c.Port)) + c.Path
	deadline := time.Now().Add(answerTimeout)
	for {
		last := r.once(c, url)
		if last == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no correct answer from %s within %s: %w", url, answerTimeout, last)
		}
		time.Sleep(retryPause)
	}
}

func (r *runner) once(c Case, url string) error {
	method, body := http.MethodGet, io.Reader(nil)
	if c.Body != "" {
		method, body = http.MethodPost, bytes.NewBufferString(c.Body)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(text), c.Wants) {
		return fmt.Errorf("status %d: %.200s", response.StatusCode, text)
	}
	return nil
}

func (r *runner) remove(sandbox string) error {
	if sandbox == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, err := r.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("StopPodSandbox: %w", err)
	}
	_, err := r.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox})
	return err
}

func since(begin time.Time) float64 {
	return float64(time.Since(begin).Microseconds()) / 1000
}
