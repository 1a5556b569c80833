// Package conformance runs csi-sanity, the Kubernetes project's suite for CSI drivers, against a plugin that
// run.sh has started. A specification that is skipped fails the run, unless it is listed below with its reason.
package conformance

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
)

type absence struct{ part, why string }

// What an image cannot be asked for, and why: parts of specifications' names, the first that fits counts. Of the
// Node service that is expansion alone.
var absent = []absence{
	{"ExpandVolume", "an image does not grow"},
	{"[Controller Server] GetCapacity", "nothing is allocated, so nothing runs out"},
	{"[Controller Server] ListVolumes", "volumes live in PersistentVolumes, not in the controller"},
	{"[Controller Server] ControllerPublishVolume", "images need no attaching"},
	{"[Controller Server] ControllerUnpublishVolume", "images need no attaching"},
	{"[Controller Server] volume lifecycle", "images need no attaching"},
	{"already existing name and different capacity", "an image's size is not the claim's, so it is not reported"},
	{"volume attribute class", "an image has no mutable parameters"},
	{"GroupController Service", "images have no snapshots to group"},
	{"ModifyVolume", "an image has no mutable parameters"},
	{"source volume", "an image is named, not copied from a volume"},
	{"Snapshot", "images have tags and digests instead of snapshots"},
	{"snapshot", "images have tags and digests instead of snapshots"},
}

// Fewer than this would mean that the suite has not really run.
const leastPassed = 30

func setting(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; start the suite with tests/conformance/run.sh", name)
	}
	return value
}

// The suite's own Connect looks at the connection's state twice in a row and waits a minute for nothing, then
// fails, where the connection is made in between. A moment's delay keeps it out of that gap.
func dial(ctx context.Context, path string) (net.Conn, error) {
	time.Sleep(100 * time.Millisecond)
	var dialer net.Dialer
	// The passthrough scheme drops the first slash.
	return dialer.DialContext(ctx, "unix", "/"+strings.TrimPrefix(path, "/"))
}

func TestSanity(t *testing.T) {
	config := sanity.NewTestConfig()
	config.Address = "passthrough://" + setting(t, "SANITY_ENDPOINT")
	config.DialOptions = append(config.DialOptions, grpc.WithContextDialer(dial))
	config.ControllerDialOptions = append(config.ControllerDialOptions, grpc.WithContextDialer(dial))
	if controller := os.Getenv("SANITY_CONTROLLER_ENDPOINT"); controller != "" {
		config.ControllerAddress = "passthrough://" + controller
		// The suite asks the node's process whether there is a controller. These ran with both in one.
		const why = "needs the controller in the node's process"
		absent = append(absent, absence{"Node Service should work", why}, absence{"Node Service should be idempotent", why})
	}
	config.TargetPath = setting(t, "SANITY_TARGETS")
	config.StagingPath = setting(t, "SANITY_STAGING")
	config.TestVolumeParameters = map[string]string{"image": setting(t, "SANITY_IMAGE")}
	_ = sanity.GinkgoTest(&config)
	RegisterFailHandler(Fail)
	ReportAfterSuite("nothing is skipped without a reason", account)
	RunSpecs(t, "CSI")
}

func account(report types.Report) {
	passed, skipped := 0, map[string]int{}
	for _, spec := range report.SpecReports {
		switch {
		case spec.LeafNodeType != types.NodeTypeIt:
		case spec.State == types.SpecStatePassed:
			passed++
		case spec.State == types.SpecStateSkipped || spec.State == types.SpecStatePending:
			why := reason(spec.FullText())
			Expect(why).NotTo(BeEmpty(), "skipped without a reason: %s", spec.FullText())
			skipped[why]++
		}
	}
	fmt.Printf("\n%d specifications passed; skipped were\n", passed)
	for why, count := range skipped {
		fmt.Printf("%4d  %s\n", count, why)
	}
	Expect(passed).To(BeNumerically(">=", leastPassed), "too few specifications ran")
}

func reason(name string) string {
	for _, absence := range absent {
		if strings.Contains(name, absence.part) {
			return absence.why
		}
	}
	return ""
}
