package main

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What Centrifugo's Kafka consumer has unless it is told otherwise.
const (
	maxPollRecords      = 100
	partitionBufferSize = 8
	channelsHeader      = "centrifugo-channels"
)

// consume publishes each record of a topic, as Centrifugo's consumer does in its publication data mode: a group that
// begins at the start, 100 records a poll, a goroutine a partition, the channel in a header, marks that are committed.
// Where Centrifugo pauses a partition whose goroutine is behind, and fetches again later, this waits for it.
// It returns when the group has given it partitions.
func consume(bootstrap, topic string, publish func(channel string, data []byte)) error {
	assigned := make(chan struct{})
	var once sync.Once
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup("bench-"+topic),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) {
			once.Do(func() { close(assigned) })
		}),
		kgo.AutoCommitMarks(),
		kgo.BlockRebalanceOnPoll(),
		kgo.ClientID("centrifugo"),
	)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- poll(client, publish) }()
	select {
	case <-assigned:
		go func() { panic(<-failed) }()
		return nil
	case err := <-failed:
		return err
	}
}

func poll(client *kgo.Client, publish func(channel string, data []byte)) error {
	partitions := map[int32]chan []*kgo.Record{}
	for {
		fetches := client.PollRecords(context.Background(), maxPollRecords)
		for _, failure := range fetches.Errors() {
			return errors.Join(errors.New("the topic cannot be read"), failure.Err)
		}
		fetches.EachPartition(func(fetched kgo.FetchTopicPartition) {
			if len(fetched.Records) == 0 {
				return
			}
			records, found := partitions[fetched.Partition]
			if !found {
				records = make(chan []*kgo.Record, partitionBufferSize)
				partitions[fetched.Partition] = records
				go publishAll(client, records, publish)
			}
			records <- fetched.Records
		})
		client.AllowRebalance()
	}
}

func publishAll(client *kgo.Client, batches <-chan []*kgo.Record, publish func(channel string, data []byte)) {
	for records := range batches {
		for _, record := range records {
			for _, header := range record.Headers {
				if header.Key == channelsHeader {
					publish(string(header.Value), record.Value)
				}
			}
			client.MarkCommitRecords(record)
		}
	}
}
