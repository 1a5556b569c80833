package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The certificate authority, and the log that its certificates are in.
type authority struct {
	root, intermediate *x509.Certificate
	key, ctlog         *ecdsa.PrivateKey
	chain              []byte
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return key
}

func serial() *big.Int {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(err)
	return number
}

func issue(template, parent *x509.Certificate, public any, by crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	must(err)
	certificate, err := x509.ParseCertificate(der)
	must(err)
	return certificate
}

// A root and an intermediate below it whose certificates may be used for usage.
func newChain(name string, usage x509.ExtKeyUsage) (root, intermediate *x509.Certificate, key *ecdsa.PrivateKey) {
	template := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: serial(), Subject: pkix.Name{CommonName: cn, Organization: []string{"composefs-csi tests"}},
			NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	rootKey, key := newKey(), newKey()
	self := template(name)
	root = issue(self, self, rootKey.Public(), rootKey)
	below := template(name + " intermediate")
	below.MaxPathLenZero = true
	below.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	return root, issue(below, root, key.Public(), rootKey), key
}

func certificatePEM(certificates ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func publicPEM(key crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func newAuthority() *authority {
	root, intermediate, key := newChain("fulcio", x509.ExtKeyUsageCodeSigning)
	return &authority{root, intermediate, key, newKey(), certificatePEM(intermediate, root)}
}

type claims struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Email   string `json:"email"`
}

func tokenClaims(r *http.Request) (c claims, err error) {
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		return c, errors.New("no token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &c)
	}
	return c, err
}

var (
	oidIssuer   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	oidIssuerV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
	oidSCTs     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
)

func (a *authority) leaf(r *http.Request, public any) (*x509.Certificate, error) {
	who, err := tokenClaims(r)
	if err != nil {
		return nil, err
	}
	issuer, err := asn1.MarshalWithParams(who.Issuer, "utf8")
	must(err)
	from := time.Now().Add(-time.Minute)
	if r.Header.Get("X-Fault") == "expired" {
		from = from.Add(-time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: from, NotAfter: from.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{
			{Id: oidIssuer, Value: []byte(who.Issuer)},
			{Id: oidIssuerV2, Value: issuer},
		},
	}
	if who.Email != "" {
		// Several addresses with blanks between them become several names.
		template.EmailAddresses = strings.Fields(who.Email)
	} else {
		subject, err := url.Parse(who.Subject)
		if err != nil {
			return nil, err
		}
		template.URIs = []*url.URL{subject}
	}
	// What the log signs is the certificate without its promise; Go puts that last (RFC 6962, 3.2).
	without := issue(template, a.intermediate, public, a.key)
	promise := pkix.Extension{Id: oidSCTs, Value: a.promise(without)}
	template.ExtraExtensions = append(template.ExtraExtensions, promise)
	return issue(template, a.intermediate, public, a.key), nil
}

// The list of one signed certificate timestamp as certificates embed it.
func (a *authority) promise(of *x509.Certificate) []byte {
	at := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	issuer := sha256.Sum256(a.intermediate.RawSubjectPublicKeyInfo)
	tbs := of.RawTBSCertificate
	signed := append([]byte{0, 0}, at...)
	signed = append(signed, 0, 1)
	signed = append(signed, issuer[:]...)
	signed = append(signed, byte(len(tbs)>>16), byte(len(tbs)>>8), byte(len(tbs)))
	signed = append(append(signed, tbs...), 0, 0)
	digest := sha256.Sum256(signed)
	signature, err := ecdsa.SignASN1(rand.Reader, a.ctlog, digest[:])
	must(err)

	id, err := x509.MarshalPKIXPublicKey(a.ctlog.Public())
	must(err)
	logID := sha256.Sum256(id)
	sct := append([]byte{0}, logID[:]...)
	sct = append(append(sct, at...), 0, 0, 4, 3)
	sct = append(binary.BigEndian.AppendUint16(sct, uint16(len(signature))), signature...)
	list := binary.BigEndian.AppendUint16(nil, uint16(len(sct)+2))
	list = append(binary.BigEndian.AppendUint16(list, uint16(len(sct))), sct...)
	value, err := asn1.Marshal(list)
	must(err)
	return value
}

// Fulcio's first API, which cosign 2 uses.
func (a *authority) v1(w http.ResponseWriter, r *http.Request) {
	var request struct {
		PublicKey struct {
			Content []byte `json:"content"`
		} `json:"publicKey"`
	}
	err := json.NewDecoder(r.Body).Decode(&request)
	var public any
	if err == nil {
		der := request.PublicKey.Content
		if block, _ := pem.Decode(der); block != nil {
			der = block.Bytes
		}
		public, err = x509.ParsePKIXPublicKey(der)
	}
	var leaf *x509.Certificate
	if err == nil {
		leaf, err = a.leaf(r, public)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(bytes.Join([][]byte{certificatePEM(leaf), a.chain}, nil))
}

// Fulcio's second API, which cosign 3 uses.
func (a *authority) v2(w http.ResponseWriter, r *http.Request) {
	var request struct {
		PublicKeyRequest struct {
			PublicKey struct {
				Content string `json:"content"`
			} `json:"publicKey"`
		} `json:"publicKeyRequest"`
	}
	err := json.NewDecoder(r.Body).Decode(&request)
	var leaf *x509.Certificate
	if err == nil {
		block, _ := pem.Decode([]byte(request.PublicKeyRequest.PublicKey.Content))
		if block == nil {
			err = errors.New("no public key")
		} else if public, bad := x509.ParsePKIXPublicKey(block.Bytes); bad != nil {
			err = bad
		} else {
			leaf, err = a.leaf(r, public)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, http.StatusOK, map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{
		"certificates": []string{
			string(certificatePEM(leaf)), string(certificatePEM(a.intermediate)), string(certificatePEM(a.root)),
		},
	}}})
}

func answer(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document)
}
