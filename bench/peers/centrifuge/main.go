// Peer: centrifuge, the library that Centrifugo is built on.
// `COUNTER TEMPLATE [BOOTSTRAP TOPIC]`, told as bench/peers/ticks.py says; with a topic it publishes that topic's records.
//
// A node as Centrifugo makes it where its configuration says nothing: its broker in memory, no history, no write delay
// (a connection's writer takes what is queued, 16 messages a frame at most), a queue of 1 MiB a connection, JSON. What
// Centrifugo adds around it is left out: tokens, the rules of channels, its HTTP API.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
)

const (
	channel  = "events"
	path     = "/connection/websocket"
	lifetime = time.Hour
	// Centrifugo's; the library's own are 25 s and 10 s.
	pingInterval, pongTimeout = 25 * time.Second, 8 * time.Second
)

func newNode() (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{
		Metrics:  centrifuge.MetricsConfig{MetricsNamespace: "centrifugo"},
		LogLevel: centrifuge.LogLevelError,
		LogHandler: func(entry centrifuge.LogEntry) {
			fmt.Fprintln(os.Stderr, "centrifuge:", entry.Message, entry.Fields)
		},
	})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		// Anonymous, as with Centrifugo's client.insecure. What is zero here has the default of the library and of Centrifugo.
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
	})
	return node, node.Run()
}

func main() {
	time.AfterFunc(lifetime, func() { os.Exit(1) })
	counter, err := os.Open(os.Args[1])
	check(err)
	node, err := newNode()
	check(err)
	publish := func(channel string, data []byte) {
		_, err := node.Publish(channel, data)
		check(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	routes := http.NewServeMux()
	routes.Handle(path, centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: pingInterval, PongTimeout: pongTimeout},
	}))
	go http.Serve(listener, routes)
	if len(os.Args) > 3 {
		check(consume(os.Args[3], os.Args[4], publish))
	}
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	ticks := Ticks{
		counter:  counter,
		template: os.Args[2],
		publish:  func(event []byte) { publish(channel, event) },
		clients:  func() int { return node.Hub().NumSubscribers(channel) },
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var events int
		var seconds, rate float64
		if _, err := fmt.Fscanf(strings.NewReader(lines.Text()), "run %d %f %f", &events, &seconds, &rate); err == nil {
			ticks.Run(events, seconds, rate)
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "centrifuge:", err)
		os.Exit(1)
	}
}
