package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/seed-134acfd0/lull/loadgen"
	"github.com/seed-134acfd0/lull/netpoll"
)

type loadCmd struct {
	URL        []string       `default:"ws://127.0.0.1:8080/"`
	Conns      int            `default:"1000"`
	Rate       float64        `default:"0"`
	Hold       time.Duration  `default:"0s"`
	Broadcasts int            `default:"0"`
	Burst      int            `default:"1"`
	Size       int            `default:"32"`
	Active     int            `default:"0"`
	Echo       time.Duration  `default:"0"`
	Workers    int            `default:"0"`
	FDTables   netpoll.Tables `name:"fd-tables" default:"auto"`
	Floor      bool
	Probe      time.Duration
	JSON       string
}

func (c *loadCmd) Run(ctx context.Context) error {
	res, err := loadgen.Run(ctx, loadgen.Config{
		URLs: c.URL, Conns: c.Conns, Rate: c.Rate, Hold: c.Hold, Broadcasts: c.Broadcasts, Burst: c.Burst, Size: c.Size,
		Active: c.Active, Echo: c.Echo, Floor: c.Floor, Probe: c.Probe, Workers: c.Workers, Tables: c.FDTables,
	})
	if res != nil {
		res.WriteText(os.Stdout)
		if c.JSON != "" {
			b, _ := json.MarshalIndent(res, "", " ")
			_ = os.WriteFile(c.JSON, b, 0o644)
		}
	}
	if err == nil && !res.OK() {
		err = fmt.Errorf("not ok")
	}
	return err
}
