//go:build kvdtest

package transport

import (
	"context"
	"net"

	"google.golang.org/grpc"

	"github.com/kvdstore/kvd/internal/faults"
)

// dialling asks at each attempt to connect where the address leads now.
func dialling() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", faults.Dialled(address))
	})}
}
