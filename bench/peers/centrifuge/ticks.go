package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const monotonic = 1

// Ticks makes events as bench/peers/ticks.py says, for who publishes them, but for one thing: the next tick comes when
// every client has read all of the last. Who is published to here has a queue, which would join ticks that are made
// before it is empty: of three or so of one event each it made one frame, and "1 a tick" would not have been that.
type Ticks struct {
	counter  *os.File
	template string
	publish  func(event []byte)
	clients  func() int
}

func nowNs() int64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

func (ticks *Ticks) delivered() uint64 {
	var eight [8]byte
	ticks.counter.ReadAt(eight[:], 0)
	return binary.LittleEndian.Uint64(eight[:])
}

// Run makes ticks of so many events, or with 0 events a tick of those that are due, and tells what it made.
func (ticks *Ticks) Run(events int, seconds, rate float64) {
	clients := ticks.clients()
	began, base, number, made := time.Now(), ticks.delivered(), 0, 0
	end := began.Add(time.Duration(seconds * 1e9))
	for time.Now().Before(end) {
		count := events
		if events == 0 {
			count = int(time.Since(began).Seconds()*rate) - made
			if count == 0 {
				time.Sleep(time.Millisecond)
				continue
			}
		} else if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(number) / rate * 1e9))))
		} else {
			for ticks.delivered()-base < uint64(made*clients) && time.Now().Before(end) {
				time.Sleep(200 * time.Microsecond)
			}
		}
		for range count {
			ticks.publish(fmt.Appendf(nil, "%s%d}", ticks.template, nowNs()))
		}
		made += count
		number++
	}
	fmt.Printf("{\"ticks\": %d, \"events\": %d, \"clients\": %d, \"seconds\": %f}\n",
		number, made, clients, time.Since(began).Seconds())
}
