package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/intoto/v0.0.2"
)

const (
	tree   = 4242
	origin = "rekor.composefs-csi.test"
)

// A Rekor (v1) whose tree is in memory.
type rekor struct {
	key    *ecdsa.PrivateKey
	id     [32]byte
	mutex  sync.Mutex
	leaves [][]byte
}

func newLog() *rekor {
	key := newKey()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(err)
	// Not empty, so that every proof has something to prove.
	return &rekor{key: key, id: sha256.Sum256(der), leaves: [][]byte{leafHash([]byte("the first leaf"))}}
}

func (l *rekor) sign(message []byte) []byte {
	digest := sha256.Sum256(message)
	signature, err := ecdsa.SignASN1(rand.Reader, l.key, digest[:])
	must(err)
	return signature
}

func (l *rekor) add(w http.ResponseWriter, r *http.Request) {
	proposed, err := models.UnmarshalProposedEntry(r.Body, runtime.JSONConsumer())
	var entry types.EntryImpl
	if err == nil {
		entry, err = types.CreateVersionedEntry(proposed)
	}
	var body []byte
	if err == nil {
		body, err = types.CanonicalizeEntry(context.Background(), entry)
	}
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"code": 400, "message": err.Error()})
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	index, leaf := len(l.leaves), leafHash(body)
	l.leaves = append(l.leaves, leaf)
	encoded, at, logID := base64.StdEncoding.EncodeToString(body), time.Now().Unix(), hex.EncodeToString(l.id[:])
	// RFC 8785 for these members: sorted, without spaces.
	promised := fmt.Sprintf(`{"body":%q,"integratedTime":%d,"logID":%q,"logIndex":%d}`, encoded, at, logID, index)
	hashes := []string{}
	for _, hash := range path(l.leaves, index) {
		hashes = append(hashes, hex.EncodeToString(hash))
	}
	root := rootHash(l.leaves)
	uuid := fmt.Sprintf("%016x%s", tree, hex.EncodeToString(leaf))
	w.Header().Set("Location", "/api/v1/log/entries/"+uuid)
	w.Header().Set("ETag", uuid)
	answer(w, http.StatusCreated, map[string]any{uuid: map[string]any{
		"body": encoded, "integratedTime": at, "logID": logID, "logIndex": index,
		"verification": map[string]any{
			"signedEntryTimestamp": l.sign([]byte(promised)),
			"inclusionProof": map[string]any{
				"checkpoint": l.checkpoint(root), "hashes": hashes, "logIndex": index,
				"rootHash": hex.EncodeToString(root), "treeSize": len(l.leaves),
			},
		},
	}})
}

// The signed note of the tree's head.
func (l *rekor) checkpoint(root []byte) string {
	text := fmt.Sprintf("%s - %d\n%d\n%s\n", origin, tree, len(l.leaves), base64.StdEncoding.EncodeToString(root))
	signature := append(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(l.id[:4])), l.sign([]byte(text))...)
	return fmt.Sprintf("%s\n\u2014 %s %s\n", text, origin, base64.StdEncoding.EncodeToString(signature))
}

// RFC 6962, 2.1.
func leafHash(data []byte) []byte {
	hash := sha256.Sum256(append([]byte{0}, data...))
	return hash[:]
}

func nodeHash(left, right []byte) []byte {
	hash := sha256.Sum256(append(append([]byte{1}, left...), right...))
	return hash[:]
}

// The largest power of two below n.
func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func rootHash(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	return nodeHash(rootHash(leaves[:k]), rootHash(leaves[k:]))
}

func path(leaves [][]byte, index int) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if index < k {
		return append(path(leaves[:k], index), rootHash(leaves[k:]))
	}
	return append(path(leaves[k:], index-k), rootHash(leaves[:k]))
}
