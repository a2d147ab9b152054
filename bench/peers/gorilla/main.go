// Peer: Go with gorilla/websocket, a message prepared once and written to each in a loop.
// Called and told as bench/peers/ticks.py says.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/gorilla/websocket"
)

const (
	ticksAhead = 2
	monotonic  = 1
	lifetime   = time.Hour
)

var (
	lock    sync.Mutex
	clients = map[*websocket.Conn]struct{}{}
	counter *os.File
)

func nowNs() int64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

func delivered() uint64 {
	var eight [8]byte
	counter.ReadAt(eight[:], 0)
	return binary.LittleEndian.Uint64(eight[:])
}

func join(answer http.ResponseWriter, request *http.Request) {
	upgrader := websocket.Upgrader{ReadBufferSize: 512, WriteBufferSize: 512}
	client, err := upgrader.Upgrade(answer, request, nil)
	if err != nil {
		return
	}
	lock.Lock()
	clients[client] = struct{}{}
	lock.Unlock()
	for {
		if _, _, err := client.NextReader(); err != nil {
			break
		}
	}
	lock.Lock()
	delete(clients, client)
	lock.Unlock()
	client.Close()
}

func run(template string, events int, seconds, rate float64) {
	lock.Lock()
	all := make([]*websocket.Conn, 0, len(clients))
	for client := range clients {
		all = append(all, client)
	}
	lock.Unlock()
	began, base, ticks := time.Now(), delivered(), 0
	end := began.Add(time.Duration(seconds * 1e9))
	for time.Now().Before(end) {
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(ticks) / rate * 1e9))))
		} else {
			for ticks >= ticksAhead && uint64((ticks-ticksAhead)*events*len(all)) >= delivered()-base &&
				time.Now().Before(end) {
				time.Sleep(200 * time.Microsecond)
			}
		}
		for number := 0; number < events; number++ {
			event := fmt.Sprintf("%s%d}", template, nowNs())
			message, err := websocket.NewPreparedMessage(websocket.TextMessage, []byte(event))
			if err != nil {
				panic(err)
			}
			for _, client := range all {
				client.WritePreparedMessage(message)
			}
		}
		ticks++
	}
	fmt.Printf("{\"ticks\": %d, \"events\": %d, \"clients\": %d, \"seconds\": %f}\n",
		ticks, ticks*events, len(all), time.Since(began).Seconds())
}

func main() {
	time.AfterFunc(lifetime, func() { os.Exit(1) })
	template := os.Args[2]
	var err error
	if counter, err = os.Open(os.Args[1]); err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(join))
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var events int
		var seconds, rate float64
		if _, err := fmt.Fscanf(strings.NewReader(lines.Text()), "run %d %f %f", &events, &seconds, &rate); err == nil {
			run(template, events, seconds, rate)
		}
	}
}
