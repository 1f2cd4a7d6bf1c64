//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

/// Upper bounds of a histogram of seconds.
pub const BOUNDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What a metric is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    Counter,
    /// Counts in buckets.
    Histogram,
}

/// The text so far.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// Counts of durations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, seconds: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

impl Exposition {
    /// A metric begins; its samples follow.
    pub fn metric(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = writeln!(self.0, "{name}{} {value}", braces(labels));
    }

    /// A whole number.
    pub fn count(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = writeln!(self.0, "{name}{} {value}", braces(labels));
    }

    /// A histogram's numbers.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        for (bound, count) in BOUNDS.iter().zip(histogram.buckets) {
            let bound = bound.to_string();
            self.count(&format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), count);
        }
        self.count(&format!("{name}_bucket"), &[labels, &[("le", "+Inf")]].concat(), histogram.count);
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.count(&format!("{name}_count"), labels, histogram.count);
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

fn braces(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_below_them() {
        let mut histogram = Histogram::default();
        histogram.add(0.03);
        histogram.add(100.0);
        let mut text = Exposition::default();
        text.metric("x_seconds", Kind::Histogram, "Time.");
        text.histogram("x_seconds", &[("phase", "a\"b\n\\")], &histogram);
        let text = text.finish();
        assert!(text.starts_with("# HELP x_seconds Time.\n# TYPE x_seconds histogram\n"), "{text}");
        let bucket = |bound: &str| format!("x_seconds_bucket{{phase=\"a\\\"b\\n\\\\\",le=\"{bound}\"}}");
        for (bound, count) in [("0.025", 0), ("0.05", 1), ("60", 1), ("+Inf", 2)] {
            assert!(text.contains(&format!("{} {count}\n", bucket(bound))), "{bound} {text}");
        }
        assert!(
            text.ends_with(
                "_sum{phase=\"a\\\"b\\n\\\\\"} 100.03\nx_seconds_count{phase=\"a\\\"b\\n\\\\\"} 2\n"
            ),
            "{text}"
        );
    }
}
