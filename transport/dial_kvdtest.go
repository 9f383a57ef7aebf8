//go:build kvdtest

package transport

import (
	"context"
	"net"
	"os"

	"google.golang.org/grpc"

	"github.com/kvdstore/kvd/internal/faults"
)

// dialling asks at each attempt to connect where the address leads now. Where the environment names a proxy, that decides: gRPC
// asks none beside a dialler.
func dialling() []grpc.DialOption {
	if os.Getenv("HTTPS_PROXY") != "" {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", faults.Dialled(address))
	})}
}
