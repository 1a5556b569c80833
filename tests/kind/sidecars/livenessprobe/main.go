// A stand-in for Kubernetes CSI's livenessprobe in the end-to-end cluster: it answers /healthz with what the
// driver's Probe says. It takes the flags that the chart passes to the real one.
package main

import (
	"context"
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
	timeout := flag.Duration("probe-timeout", time.Second, "deadline of one Probe")
	port := flag.String("health-port", "9808", "port of /healthz on every address")
	endpoint := flag.String("http-endpoint", "", "address of /healthz; instead of health-port")
	flag.Int("v", 0, "log level; accepted, without effect")
	flag.Parse()
	if *endpoint == "" {
		*endpoint = ":" + *port
	}

	target := "unix://" + strings.TrimPrefix(*address, "unix://")
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatalf("livenessprobe: %s: %v", *address, err)
	}
	identity := csi.NewIdentityClient(connection)
	http.HandleFunc("/healthz", func(answer http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithTimeout(request.Context(), *timeout)
		defer cancel()
		probe, err := identity.Probe(ctx, &csi.ProbeRequest{})
		// As in the CSI specification: no value means ready.
		if err == nil && probe.GetReady() != nil && !probe.GetReady().GetValue() {
			err = fmt.Errorf("the driver says that it is not ready")
		}
		if err != nil {
			log.Printf("livenessprobe: %v", err)
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(answer, "ok")
	})
	log.Fatal(http.ListenAndServe(*endpoint, nil))
}
