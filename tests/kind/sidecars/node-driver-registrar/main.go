// A stand-in for Kubernetes CSI's node-driver-registrar in the end-to-end cluster: it tells kubelet, on a socket
// in its plugin directory, the driver's name and socket. It takes the flags that the chart passes to the real one.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// What kubelet asks a plugin on its registration socket.
type registrar struct {
	registration.UnsafeRegistrationServer
	driver, endpoint string
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              r.driver,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// A refused registration ends the process, so that the container's restart tries again.
func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatalf("node-driver-registrar: kubelet refused %s: %s", r.driver, status.Error)
	}
	log.Printf("node-driver-registrar: kubelet has registered %s", r.driver)
	return &registration.RegistrationStatusResponse{}, nil
}

func main() {
	address := flag.String("csi-address", "/run/csi/socket", "the driver's socket as this container sees it")
	endpoint := flag.String("kubelet-registration-path", "", "the driver's socket as kubelet sees it")
	directory := flag.String("plugin-registration-path", "/registration", "kubelet's plugin directory")
	timeout := flag.Duration("timeout", time.Second, "how long the driver may take to say its name")
	http := flag.String("http-endpoint", "", "address of /healthz; none by default")
	port := flag.String("health-port", "", "port of /healthz on every address; instead of http-endpoint")
	flag.String("mode", "", "accepted, without effect")
	flag.Int("v", 0, "log level; accepted, without effect")
	flag.Parse()
	if *endpoint == "" {
		log.Fatal("node-driver-registrar: --kubelet-registration-path is missing")
	}
	if *http == "" && *port != "" {
		*http = ":" + *port
	}

	driver := driverName(*address, *timeout)
	socket := filepath.Join(*directory, driver+"-reg.sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		log.Fatalf("node-driver-registrar: %v", err)
	}
	// Kubelet calls whoever can connect; nobody but root may answer.
	syscall.Umask(0o077)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatalf("node-driver-registrar: %s: %v", socket, err)
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, &registrar{driver: driver, endpoint: *endpoint})
	if *http != "" {
		go serveHealth(*http)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.Stop() // removes the socket: kubelet takes that as the end of the driver
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatalf("node-driver-registrar: %v", err)
	}
}

// Asks the driver for its name. As in the real one, a driver that is still starting is waited for without end, and
// one that takes connections must answer in time, or this container is restarted.
func driverName(address string, timeout time.Duration) string {
	target := "unix://" + strings.TrimPrefix(address, "unix://")
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatalf("node-driver-registrar: %s: %v", address, err)
	}
	defer connection.Close()
	connection.Connect()
	for state := connection.GetState(); state != connectivity.Ready; state = connection.GetState() {
		connection.WaitForStateChange(context.Background(), state)
		connection.Connect()
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	info, err := csi.NewIdentityClient(connection).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		log.Fatalf("node-driver-registrar: %s does not say its name: %v", address, err)
	}
	return info.GetName()
}

func serveHealth(address string) {
	http.HandleFunc("/healthz", func(answer http.ResponseWriter, _ *http.Request) {
		answer.WriteHeader(http.StatusOK)
	})
	log.Fatal(http.ListenAndServe(address, nil))
}
