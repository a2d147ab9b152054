"""What operators see: counters, histograms and gauges, and what goes wrong with records, counted and logged seldom.

In: what the other rooms tell through the observers that they define. Out: families of samples, as Prometheus text, of this
process or of several workers as one.

    metrics         every metric, by name                          counters         cheap ones, and histograms
    merged_metrics  those of several workers as one                loop_lag         how late the loop is
    market_faults   records that could not be used                 audit            a line for each order command

Uses orders and delivery (for the observers that it implements), messages and the ground.
"""
