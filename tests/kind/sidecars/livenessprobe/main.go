// A stand-in for Kubernetes CSI's livenessprobe in the end-to-end cluster: it answers /healthz with what the
// driver's Probe says. It takes the flags that the chart passes to the real one, and as there, nobody listens on the
// port until the driver has said its name, and every probe is a connection of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	address := flag.String("csi-address", "/csi/csi.sock", "the driver's socket")
	timeout := flag.Duration("probe-timeout", 3*time.Second, "deadline of one Probe")
	port := flag.String("health-port", "9808", "port of /healthz on every address")
	endpoint := flag.String("http-endpoint", "", "address of /healthz; instead of health-port")
	flag.Int("v", 0, "log level; accepted, without effect")
	flag.Parse()
	if *endpoint == "" {
		*endpoint = ":" + *port
	}

	if err := call(context.Background(), *address, name); err != nil {
		log.Fatalf("livenessprobe: %s does not say its name: %v", *address, err)
	}
	http.HandleFunc("/healthz", func(answer http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithTimeout(request.Context(), *timeout)
		defer cancel()
		if err := call(ctx, *address, probe); err != nil {
			log.Printf("livenessprobe: %v", err)
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(answer, "ok")
	})
	log.Fatal(http.ListenAndServe(*endpoint, nil))
}

// Connects, waits for the driver as long as ctx allows, asks, and closes the connection.
func call(ctx context.Context, address string, ask func(context.Context, csi.IdentityClient) error) error {
	target := "unix://" + strings.TrimPrefix(address, "unix://")
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	return ask(ctx, csi.NewIdentityClient(connection))
}

func name(ctx context.Context, driver csi.IdentityClient) error {
	_, err := driver.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	return err
}

func probe(ctx context.Context, driver csi.IdentityClient) error {
	answer, err := driver.Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	// As in the CSI specification: no value means ready.
	if err == nil && answer.GetReady() != nil && !answer.GetReady().GetValue() {
		err = errors.New("the driver says that it is not ready")
	}
	return err
}
