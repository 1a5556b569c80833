// A sigstore of one process for tests: the parts of Fulcio, Rekor (v1), a certificate transparency log and a time
// stamp authority that cosign talks to when it signs. Their answers are real: certificates with embedded SCTs,
// entries canonicalised by Rekor's own code in a Merkle tree, signed checkpoints and promises, RFC 3161 tokens.
// What they leave out is what guards a public service: identity tokens and proofs of possession are not verified.
//
//	sigstore DIR    writes fulcio.pem, rekor.pub, ctfe.pub and tsa.pem into DIR, then the URL to DIR/url
//
// A URL may begin with a fault: /expired issues certificates that end before they are used.
package main

import (
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: sigstore DIR")
	}
	dir := os.Args[1]
	ca, tlog, stamper := newAuthority(), newLog(), newStamper()
	write(dir, "fulcio.pem", ca.chain)
	write(dir, "ctfe.pub", publicPEM(ca.ctlog.Public()))
	write(dir, "rekor.pub", publicPEM(tlog.key.Public()))
	write(dir, "tsa.pem", stamper.chain)

	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/signingCert", ca.v1)
	mux.HandleFunc("POST /api/v2/signingCert", ca.v2)
	mux.HandleFunc("POST /api/v1/log/entries", tlog.add)
	mux.HandleFunc("GET /api/v1/log/publicKey", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(publicPEM(tlog.key.Public()))
	})
	mux.HandleFunc("POST /api/v1/timestamp", stamper.stamp)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	// Last, and at once: whoever waits for this file finds everything else.
	write(dir, ".url", []byte("http://"+listener.Addr().String()))
	must(os.Rename(filepath.Join(dir, ".url"), filepath.Join(dir, "url")))
	must(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/expired"); ok {
			r.URL.Path = rest
			r.Header.Set("X-Fault", "expired")
		}
		log.Println(r.Method, r.URL.Path)
		mux.ServeHTTP(w, r)
	})))
}

func write(dir, name string, content []byte) {
	must(os.WriteFile(filepath.Join(dir, name), content, 0o644))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
