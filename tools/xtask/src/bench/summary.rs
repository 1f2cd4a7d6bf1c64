//! Samples into percentiles, and those into a table.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One measured value, as the node prints it.
#[derive(Debug, Clone, Deserialize)]
pub struct Sample {
    metric: String,
    subject: String,
    unit: String,
    value: f64,
}

/// All samples of a metric and subject.
#[derive(Debug, PartialEq, Serialize)]
pub struct Row {
    metric: String,
    subject: String,
    unit: String,
    n: usize,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// A row for each metric and subject, in the order of their first samples, those of a metric together.
pub fn summarize(samples: &[Sample]) -> Vec<Row> {
    let mut metrics: Vec<&str> = Vec::new();
    let mut pairs: Vec<(&str, &str, &str)> = Vec::new();
    for sample in samples {
        let pair = (sample.metric.as_str(), sample.subject.as_str(), sample.unit.as_str());
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
        if !metrics.contains(&pair.0) {
            metrics.push(pair.0);
        }
    }
    pairs.sort_by_key(|pair| metrics.iter().position(|metric| *metric == pair.0));
    pairs
        .into_iter()
        .map(|(metric, subject, unit)| {
            let ours = samples.iter().filter(|sample| sample.metric == metric && sample.subject == subject);
            let mut values: Vec<f64> = ours.map(|sample| sample.value).collect();
            values.sort_by(f64::total_cmp);
            let at = |percent| round(percentile(&values, percent));
            Row {
                metric: metric.to_owned(),
                subject: subject.to_owned(),
                unit: unit.to_owned(),
                n: values.len(),
                p50: at(50),
                p90: at(90),
                p99: at(99),
            }
        })
        .collect()
}

/// The smallest value that at least so many percent of the values don't exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The rows under a heading.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:16} {:14} {:12} {:>4} {:>10} {:>10} {:>10}\n",
        "metric", "subject", "unit", "n", "p50", "p90", "p99"
    );
    for Row { metric, subject, unit, n, p50, p90, p99 } in rows {
        let _ =
            writeln!(text, "{metric:16} {subject:14} {unit:12} {n:>4} {p50:>10.2} {p90:>10.2} {p99:>10.2}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(metric: &str, subject: &str, value: f64) -> Sample {
        Sample { metric: metric.into(), subject: subject.into(), unit: "ms".into(), value }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!([50, 90, 99].map(|percent| percentile(&values, percent)), [10.0, 18.0, 20.0]);
        assert_eq!(percentile(&[7.0], 50), 7.0);
    }

    #[test]
    fn rows_of_a_metric_stand_together() {
        let samples = [
            sample("start", "nacre", 3.0),
            sample("ready", "nacre", 1.0),
            sample("start", "runc", 2.0),
            sample("start", "nacre", 1.0),
        ];
        let rows = summarize(&samples);
        let names: Vec<(&str, &str, usize)> =
            rows.iter().map(|row| (row.metric.as_str(), row.subject.as_str(), row.n)).collect();
        assert_eq!(names, [("start", "nacre", 2), ("start", "runc", 1), ("ready", "nacre", 1)]);
        assert_eq!(table(&rows).lines().count(), 4);
    }
}
