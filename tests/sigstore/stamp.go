package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net/http"
	"time"

	"github.com/digitorus/timestamp"
)

// A time stamp authority (RFC 3161).
type stamper struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       []byte
}

func newStamper() *stamper {
	root, intermediate, above := newChain("tsa", x509.ExtKeyUsageTimeStamping)
	key := newKey()
	// The usage must be critical, which Go's own field for it is not.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	must(err)
	leaf := issue(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "tsa leaf", Organization: []string{"composefs-csi tests"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage},
		},
	}, intermediate, key.Public(), above)
	return &stamper{leaf, key, certificatePEM(leaf, intermediate, root)}
}

func (s *stamper) stamp(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request *timestamp.Request
	if err == nil {
		request, err = timestamp.ParseRequest(body)
	}
	var token []byte
	if err == nil {
		stamp := timestamp.Timestamp{
			HashAlgorithm: request.HashAlgorithm, HashedMessage: request.HashedMessage, Nonce: request.Nonce,
			Time: time.Now(), Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2},
			Accuracy: time.Second, AddTSACertificate: request.Certificates,
		}
		token, err = stamp.CreateResponseWithOpts(s.certificate, s.key, crypto.SHA256)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(token)
}
