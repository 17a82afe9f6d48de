// A device plugin for tests, as vendors of accelerators ship them: it offers a number of devices
// of one resource to the kubelet, and hands out each of them with the same edits.
//
//	device-plugin RESOURCE COUNT ALLOCATION
//
// ALLOCATION is a ContainerAllocateResponse of the kubelet's API as JSON.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Its socket, beside the kubelet's.
const endpoint = "wick-test.sock"

// Longest that the kubelet takes to answer, and until its own call back is answered.
const registration = 20 * time.Second

type plugin struct {
	api.UnimplementedDevicePluginServer
	devices    []*api.Device
	allocation *api.ContainerAllocateResponse
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch says once what there is: nothing breaks.
func (p *plugin) ListAndWatch(_ *api.Empty, kubelet grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	if err := kubelet.Send(&api.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	<-kubelet.Context().Done()
	return nil
}

func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for range request.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, p.allocation)
	}
	return answer, nil
}

func register(resource string) error {
	connection, err := grpc.NewClient("unix://"+api.KubeletSocket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), registration)
	defer cancel()
	request := &api.RegisterRequest{Version: api.Version, Endpoint: endpoint, ResourceName: resource}
	_, err = api.NewRegistrationClient(connection).Register(ctx, request)
	return err
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: device-plugin RESOURCE COUNT ALLOCATION")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("the count of devices: %w", err)
	}
	offer := &plugin{allocation: &api.ContainerAllocateResponse{}}
	if err := protojson.Unmarshal([]byte(args[2]), offer.allocation); err != nil {
		return fmt.Errorf("the allocation: %w", err)
	}
	for at := range count {
		device := &api.Device{ID: strconv.Itoa(at), Health: api.Healthy}
		offer.devices = append(offer.devices, device)
	}
	path := filepath.Join(api.DevicePluginPath, endpoint)
	// One that was killed has left its socket.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, offer)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	if err := register(args[0]); err != nil {
		return fmt.Errorf("register with the kubelet: %w", err)
	}
	log.Printf("%d devices of %s", count, args[0])
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err := <-ended:
		return err
	case <-stop:
		server.Stop()
		return nil
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}
