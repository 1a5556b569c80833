// Package conformance runs csi-sanity, the Kubernetes project's suite for CSI drivers, against a plugin that
// run.sh has started. A specification that is skipped fails the run, unless it is listed below with its reason.
package conformance

import (
	"os"
	"strings"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	. "github.com/onsi/gomega"
)

// What an image cannot be asked for, and why.
var absent = map[string]string{
	"Node Service NodeExpandVolume":                                    "an image does not grow",
	"ExpandVolume [Controller Server]":                                 "an image does not grow",
	"Controller Service [Controller Server] GetCapacity":               "nothing is allocated, so nothing runs out",
	"Controller Service [Controller Server] ListVolumes":               "volumes live in PersistentVolumes, not in the controller",
	"Controller Service [Controller Server] ControllerPublishVolume":   "images need no attaching",
	"Controller Service [Controller Server] ControllerUnpublishVolume": "images need no attaching",
	"already existing name and different capacity":                     "an image's size is not the claim's: capacity is reported as unknown",
	"source snapshot":        "an image is named, not copied from a snapshot",
	"source volume":          "an image is named, not copied from a volume",
	"volume attribute class": "an image has no mutable parameters",
	"Snapshot":               "images have tags and digests instead of snapshots",
	"ModifyVolume":           "an image has no mutable parameters",
	"Group":                  "images have no groups",
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

func TestSanity(t *testing.T) {
	config := sanity.NewTestConfig()
	config.Address = "unix://" + setting(t, "SANITY_ENDPOINT")
	config.ControllerAddress = os.Getenv("SANITY_CONTROLLER_ENDPOINT")
	config.TargetPath = setting(t, "SANITY_TARGETS")
	config.StagingPath = setting(t, "SANITY_STAGING")
	config.TestVolumeParameters = map[string]string{"image": setting(t, "SANITY_IMAGE")}
	_ = sanity.GinkgoTest(&config)
	RegisterFailHandler(Fail)
	ReportAfterSuite("nothing is skipped without a reason", account)
	RunSpecs(t, "CSI")
}

func account(report types.Report) {
	passed := 0
	for _, spec := range report.SpecReports {
		switch {
		case spec.LeafNodeType != types.NodeTypeIt:
		case spec.State == types.SpecStatePassed:
			passed++
		case spec.State == types.SpecStateSkipped || spec.State == types.SpecStatePending:
			Expect(reason(spec.FullText())).NotTo(BeEmpty(), "skipped without a reason: %s", spec.FullText())
		}
	}
	Expect(passed).To(BeNumerically(">=", leastPassed), "too few specifications ran")
}

func reason(name string) string {
	for part, why := range absent {
		if strings.Contains(name, part) {
			return why
		}
	}
	return ""
}
