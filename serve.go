package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

type serveCmd struct {
	Listen      []string       `help:"Addresses." default:"127.0.0.1:8080"`
	Mode        string         `enum:"chat,echo" default:"chat"`
	MaxConns    int            `help:"Most connections at once."`
	Reactors    int            `help:"Number of reactors."`
	FDTables    netpoll.Tables `name:"fd-tables" default:"auto"`
	IdleTimeout time.Duration  `default:"10m"`
	MaxMessage  int64          `default:"65536"`
	Grace       time.Duration  `default:"10s"`
}

func (c *serveCmd) Run(ctx context.Context) error {
	if c.FDTables == netpoll.Auto {
		c.FDTables = netpoll.Private
	}
	h := server.Handler{Message: func(conn server.Conn, op frame.Op, data []byte) { _ = conn.Send(op, data) }}
	if c.Mode == "chat" {
		h.Message = func(conn server.Conn, op frame.Op, data []byte) { _ = conn.Server().Broadcast(op, data) }
	}
	s, err := server.Listen(strings.Join(c.Listen, ","), h, server.Options{
		Reactors: c.Reactors, Tables: c.FDTables, MaxConns: c.MaxConns, MaxMessage: c.MaxMessage,
		IdleTimeout: c.IdleTimeout, Grace: c.Grace,
	})
	if err != nil {
		return err
	}
	fmt.Println("listening on", s.Addrs()[0])
	return s.Run(ctx)
}
