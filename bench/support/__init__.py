"""What all benches are made of: the Kafka, the processes and their CPU time, the market's records, clients, the table."""
