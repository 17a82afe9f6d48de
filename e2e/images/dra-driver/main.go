// A driver of dynamic resource allocation for tests, as vendors of accelerators ship them: it
// publishes a number of devices of its node, and says by which names of CDI the runtime finds
// those that were allocated to a claim.
//
//	dra-driver NAME COUNT KIND FOLDER
//
// KIND is that of a CDI specification, which has the devices by the names that are published:
// device-0, device-1 and so on. FOLDER is the kubelet's, at the same path as on the node, since
// the kubelet is told where a socket is. NODE_NAME in the environment is the node's name.
//
// The API server is asked in plain JSON for the two things that a driver needs of it, since
// Kubernetes' own client takes much longer to build than all the rest.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Where a pod finds the token and the certificate authority of its service account.
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// The API of claims and devices.
const group = "/apis/resource.k8s.io/v1"

// Longest that the API server takes to answer.
const patience = 10 * time.Second

// How often the devices are published. A kubelet that starts deletes what was published of its
// node, so once is not enough.
const renewal = time.Second

// Of a ResourceClaim what a driver has to know. The kubelet tells only its name.
type claim struct {
	Metadata struct {
		UID string `json:"uid"`
	} `json:"metadata"`
	Status struct {
		Allocation struct {
			Devices struct {
				Results []result `json:"results"`
			} `json:"devices"`
		} `json:"allocation"`
	} `json:"status"`
}

// One device that the scheduler has allocated.
type result struct {
	Request string `json:"request"`
	Driver  string `json:"driver"`
	Pool    string `json:"pool"`
	Device  string `json:"device"`
}

// The API server, asked by the pod's service account.
type client struct {
	http *http.Client
	url  string
}

type driver struct {
	dra.UnimplementedDRAPluginServer
	registration.UnimplementedRegistrationServer
	api        *client
	name       string
	node       string
	kind       string
	count      int
	socket     string
	registered chan error
}

func newClient() (*client, error) {
	authority, err := os.ReadFile(filepath.Join(account, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("no certificate in %s", account)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	return &client{&http.Client{Transport: transport, Timeout: patience}, "https://" + host + group}, nil
}

// call returns what the API server answers, if that is one of these states.
func (c *client) call(ctx context.Context, method, path string, body []byte, states ...int) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	// The kubelet writes a new one from time to time.
	token, err := os.ReadFile(filepath.Join(account, "token"))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(states, response.StatusCode) {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return answer, nil
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.DRAPlugin,
		Name:              d.name,
		Endpoint:          d.socket,
		SupportedVersions: []string{dra.DRAPluginService},
	}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	var err error
	if !status.PluginRegistered {
		err = fmt.Errorf("register with the kubelet: %s", status.Error)
	}
	select {
	case d.registered <- err:
	default: // One that was registered already is so again.
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) NodePrepareResources(ctx context.Context, request *dra.NodePrepareResourcesRequest) (*dra.NodePrepareResourcesResponse, error) {
	answer := &dra.NodePrepareResourcesResponse{Claims: map[string]*dra.NodePrepareResourceResponse{}}
	for _, wanted := range request.Claims {
		prepared := &dra.NodePrepareResourceResponse{}
		devices, err := d.allocated(ctx, wanted)
		if err != nil {
			prepared.Error = err.Error()
		}
		prepared.Devices = devices
		answer.Claims[wanted.Uid] = prepared
		log.Printf("prepared %s: %d devices %s", wanted.Name, len(devices), prepared.Error)
	}
	return answer, nil
}

// NodeUnprepareResources has nothing to undo: the runtime has made the device nodes.
func (d *driver) NodeUnprepareResources(_ context.Context, request *dra.NodeUnprepareResourcesRequest) (*dra.NodeUnprepareResourcesResponse, error) {
	answer := &dra.NodeUnprepareResourcesResponse{Claims: map[string]*dra.NodeUnprepareResourceResponse{}}
	for _, done := range request.Claims {
		answer.Claims[done.Uid] = &dra.NodeUnprepareResourceResponse{}
		log.Printf("unprepared %s", done.Name)
	}
	return answer, nil
}

// allocated reads which of this driver's devices a claim has got.
func (d *driver) allocated(ctx context.Context, wanted *dra.Claim) ([]*dra.Device, error) {
	path := "/namespaces/" + wanted.Namespace + "/resourceclaims/" + wanted.Name
	answer, err := d.api.call(ctx, http.MethodGet, path, nil, http.StatusOK)
	if err != nil {
		return nil, err
	}
	found := &claim{}
	if err := json.Unmarshal(answer, found); err != nil {
		return nil, fmt.Errorf("read the claim %s: %w", wanted.Name, err)
	}
	if found.Metadata.UID != wanted.Uid {
		return nil, fmt.Errorf("the claim %s is another one by now", wanted.Name)
	}
	var devices []*dra.Device
	for _, result := range found.Status.Allocation.Devices.Results {
		if result.Driver != d.name {
			continue
		}
		// An alternative of a request is called REQUEST/ALTERNATIVE, and the kubelet knows requests.
		request, _, _ := strings.Cut(result.Request, "/")
		devices = append(devices, &dra.Device{
			RequestNames: []string{request},
			PoolName:     result.Pool,
			DeviceName:   result.Device,
			CdiDeviceIds: []string{d.kind + "=" + result.Device},
		})
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("the claim %s has no device of %s", wanted.Name, d.name)
	}
	return devices, nil
}

// publish tells the scheduler what there is, unless it was told already.
func (d *driver) publish(ctx context.Context) error {
	var devices []map[string]string
	for at := range d.count {
		devices = append(devices, map[string]string{"name": fmt.Sprintf("device-%d", at)})
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
		"metadata": map[string]any{"name": d.slice()},
		"spec": map[string]any{
			"driver":   d.name,
			"nodeName": d.node,
			"pool":     map[string]any{"name": d.node, "generation": 1, "resourceSliceCount": 1},
			"devices":  devices,
		},
	})
	if err != nil {
		return err
	}
	_, err = d.api.call(ctx, http.MethodPost, "/resourceslices", body, http.StatusCreated, http.StatusConflict)
	return err
}

// withdraw takes back what was published. The kubelet would do so when the driver has been gone
// for half a minute.
func (d *driver) withdraw(ctx context.Context) error {
	path := "/resourceslices/" + d.slice()
	_, err := d.api.call(ctx, http.MethodDelete, path, nil, http.StatusOK, http.StatusNotFound)
	return err
}

func (d *driver) slice() string {
	return d.node + "-" + d.name
}

// serve answers at the driver's own socket and at the one where the kubelet looks for drivers.
func (d *driver) serve(folder string, ended chan<- error) (*grpc.Server, error) {
	server := grpc.NewServer()
	dra.RegisterDRAPluginServer(server, d)
	registration.RegisterRegistrationServer(server, d)
	// Last the one that the kubelet waits for.
	for _, path := range []string{d.socket, filepath.Join(folder, "plugins_registry", d.name+"-reg.sock")} {
		// One that was killed has left its sockets.
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		listener, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		go func() { ended <- server.Serve(listener) }()
	}
	return server, nil
}

func parse(args []string) (*driver, error) {
	if len(args) != 4 {
		return nil, fmt.Errorf("usage: dra-driver NAME COUNT KIND FOLDER")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, fmt.Errorf("the count of devices: %w", err)
	}
	node := os.Getenv("NODE_NAME")
	if node == "" {
		return nil, fmt.Errorf("NODE_NAME is not set: set it to the field spec.nodeName of the pod")
	}
	socket := filepath.Join(args[3], "plugins", args[0], "dra.sock")
	registered := make(chan error, 1)
	return &driver{
		name: args[0], node: node, kind: args[2], count: count, socket: socket, registered: registered,
	}, nil
}

func run(args []string) error {
	driver, err := parse(args)
	if err != nil {
		return err
	}
	if driver.api, err = newClient(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(driver.socket), 0o750); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan error, 2)
	server, err := driver.serve(args[3], ended)
	if err != nil {
		return err
	}
	// Nothing is published before a claim can be prepared.
	var publish <-chan time.Time
	ctx := context.Background()
	for {
		select {
		case err := <-ended:
			return err
		case err := <-driver.registered:
			if err != nil {
				return err
			}
			log.Printf("%d devices of %s", driver.count, driver.name)
			publish = time.Tick(renewal)
		case <-publish:
			if err := driver.publish(ctx); err != nil {
				log.Printf("publish the devices: %v", err)
			}
		case <-stop:
			server.Stop()
			return driver.withdraw(ctx)
		}
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}
