// Package conformance builds upstream's end-to-end tests, taken from the published k8s.io/kubernetes module, into one
// test binary. It reads the tests' own flags, and KNARR_RESULTS: a file that it appends a line to (state, seconds, name
// and why, with tabs between) as each test ends, so that a run cut short has told what it knows. `cargo xtask conformance` builds and drives it.
package conformance

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2"
	conformancetestdata "k8s.io/kubernetes/test/conformance/testdata"
	"k8s.io/kubernetes/test/e2e"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	e2etestingmanifests "k8s.io/kubernetes/test/e2e/testing-manifests"
	testfixtures "k8s.io/kubernetes/test/fixtures"

	// The features that labels and skips name.
	_ "k8s.io/kubernetes/test/e2e/feature"

	// The tests, as upstream's own binary has them; the packages without a conformance test are left out.
	_ "k8s.io/kubernetes/test/e2e/apimachinery"
	_ "k8s.io/kubernetes/test/e2e/apps"
	_ "k8s.io/kubernetes/test/e2e/architecture"
	_ "k8s.io/kubernetes/test/e2e/auth"
	_ "k8s.io/kubernetes/test/e2e/common"
	_ "k8s.io/kubernetes/test/e2e/dra"
	_ "k8s.io/kubernetes/test/e2e/instrumentation"
	_ "k8s.io/kubernetes/test/e2e/kubectl"
	_ "k8s.io/kubernetes/test/e2e/network"
	_ "k8s.io/kubernetes/test/e2e/node"
	_ "k8s.io/kubernetes/test/e2e/scheduling"
	_ "k8s.io/kubernetes/test/e2e/storage"

	// What the framework does on a failure, and to nodes.
	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/framework/metrics/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
)

func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	testfiles.AddFileSource(e2etestingmanifests.GetE2ETestingManifestsFS())
	testfiles.AddFileSource(testfixtures.GetTestFixturesFS())
	testfiles.AddFileSource(conformancetestdata.GetConformanceTestdataFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	os.Exit(m.Run())
}

func TestE2E(t *testing.T) {
	// Not at the top level: the framework has looked over all tests by now, after which ginkgo forgets such nodes.
	ginkgo.ReportAfterEach(report)
	e2e.RunE2ETests(t)
}

func report(spec ginkgo.SpecReport) {
	path := os.Getenv("KNARR_RESULTS")
	if path == "" || spec.NumAttempts == 0 {
		return
	}
	if err := record(path, spec); err != nil {
		fmt.Fprintf(os.Stderr, "cannot write the result: %v\n", err)
		os.Exit(1)
	}
}

var oneLine = strings.NewReplacer("\t", " ", "\r", "", "\n", "\\n")

func record(path string, spec ginkgo.SpecReport) error {
	// Several processes append to it: each line is one write.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "%s\t%.1f\t%s\t%s\n", spec.State, spec.RunTime.Seconds(),
		oneLine.Replace(spec.FullText()), oneLine.Replace(spec.Failure.Message))
	return err
}
