package client

import (
	"context"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
)

// admin asks any node.
func admin[Q, P any](ctx context.Context, c *Client, op wire.Op, r Q, f func(api services, ctx context.Context, r Q) (P, error)) (P, error) {
	var resp P
	err := c.do(ctx, &request{op: op, at: atAny, call: byStub(func(ctx context.Context, api services) (err error) {
		resp, err = f(api, ctx, r)
		return err
	})})
	return resp, err
}

// Map gives the shard map and the nodes' addresses, as the node that answers knows them.
func (c *Client) Map(ctx context.Context) (*kvdv1.MapResponse, error) {
	var m *kvdv1.MapResponse
	err := c.do(ctx, c.mapRequest(&m))
	return m, err
}

// Shards lists the shards with their leaders and sizes, gathered from all nodes that answer.
func (c *Client) Shards(ctx context.Context) (*kvdv1.ShardsResponse, error) {
	return admin(ctx, c, wire.Read, &kvdv1.ShardsRequest{}, func(api services, ctx context.Context, r *kvdv1.ShardsRequest) (*kvdv1.ShardsResponse, error) {
		return api.Shards(ctx, r)
	})
}

// Nodes lists the members of the cluster.
func (c *Client) Nodes(ctx context.Context) (*kvdv1.NodesResponse, error) {
	return admin(ctx, c, wire.Read, &kvdv1.NodesRequest{}, func(api services, ctx context.Context, r *kvdv1.NodesRequest) (*kvdv1.NodesResponse, error) {
		return api.Nodes(ctx, r)
	})
}

// Status describes the node that answers: with Config.Only and one endpoint, that one.
func (c *Client) Status(ctx context.Context) (*kvdv1.StatusResponse, error) {
	return admin(ctx, c, wire.Read, &kvdv1.StatusRequest{}, func(api services, ctx context.Context, r *kvdv1.StatusRequest) (*kvdv1.StatusResponse, error) {
		return api.Status(ctx, r)
	})
}

// Settings lists the cluster's settings.
func (c *Client) Settings(ctx context.Context) ([]*kvdv1.Setting, error) {
	resp, err := admin(ctx, c, wire.Read, &kvdv1.GetSettingsRequest{}, func(api services, ctx context.Context, r *kvdv1.GetSettingsRequest) (*kvdv1.GetSettingsResponse, error) {
		return api.GetSettings(ctx, r)
	})
	return resp.GetSettings(), err
}

// SetSetting changes a setting of the cluster; an empty value is the default. It gives the setting as it is then.
func (c *Client) SetSetting(ctx context.Context, name, value string) (*kvdv1.Setting, error) {
	r := &kvdv1.SetSettingRequest{Name: name, Value: value}
	resp, err := admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.SetSettingRequest) (*kvdv1.SetSettingResponse, error) {
		return api.SetSetting(ctx, r)
	})
	return resp.GetSetting(), err
}
