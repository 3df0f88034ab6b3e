// Command certs makes the local cluster's keys and certificates: Python's standard library cannot sign any.
//
//	certs ca DIR                            ca.key, ca.crt and the service account key pair sa.key, sa.pub
//	certs server DIR NAME HOST...           a serving certificate for these addresses and names
//	certs client DIR NAME USER [GROUP...]   a client certificate: the API server reads user and groups out of it
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const valid = 30 * 24 * time.Hour

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: certs ca|server|client DIR [NAME ...]"))
	}
	dir := os.Args[2]
	switch os.Args[1] {
	case "ca":
		template := newTemplate("serin-local-ca", nil)
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
		key := newKey()
		write(dir, "ca", key, sign(template, template, key, key))
		account := newKey()
		write(dir, "sa", account, nil)
		public, err := x509.MarshalPKIXPublicKey(account.Public())
		fail(err)
		writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", public)
	case "server":
		template := newTemplate(os.Args[3], nil)
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, host := range os.Args[4:] {
			if ip := net.ParseIP(host); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else {
				template.DNSNames = append(template.DNSNames, host)
			}
		}
		issue(dir, os.Args[3], template)
	case "client":
		template := newTemplate(os.Args[4], os.Args[5:])
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		issue(dir, os.Args[3], template)
	default:
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

func newTemplate(user string, groups []string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	fail(err)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: user, Organization: groups},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(valid),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func issue(dir, name string, template *x509.Certificate) {
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	fail(err)
	key := newKey()
	write(dir, name, key, sign(template, ca.Leaf, key, ca.PrivateKey.(*ecdsa.PrivateKey)))
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	return key
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) []byte {
	certificate, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	fail(err)
	return certificate
}

func write(dir, name string, key *ecdsa.PrivateKey, certificate []byte) {
	bytes, err := x509.MarshalECPrivateKey(key)
	fail(err)
	writePEM(filepath.Join(dir, name+".key"), "EC PRIVATE KEY", bytes)
	if certificate != nil {
		writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", certificate)
	}
}

func writePEM(path, kind string, bytes []byte) {
	fail(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "certs:", err)
		os.Exit(1)
	}
}
