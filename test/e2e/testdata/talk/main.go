// Command talk is the gRPC client that the tests give to a guest.
package main

import (
	"fmt"
	"os"

	"github.com/cutoutdev/cutout/internal/testnet/talk"
)

func main() {
	if err := talk.Client(os.Args[1], os.Getenv("SSL_CERT_FILE"), os.Getenv("API_KEY")); err != nil {
		fmt.Fprintln(os.Stderr, "talk:", err)
		os.Exit(1)
	}
}
