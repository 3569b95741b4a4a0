//! What a request to the kubelet asks for. Pure: path and query in, `Route` out.

use jiff::{SignedDuration, Timestamp};

use crate::container_logs::{Options, Streams};

/// The streams of an exec or attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A pod by name; the uid, when given, must be its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Healthz,
    Pods,
    RunningPods,
    Summary,
    Metrics,
    MetricsCadvisor,
    MetricsResource,
    Logs { pod: PodRef, container: String },
    Exec { pod: PodRef, container: String, command: Vec<String>, wanted: Wanted },
    Attach { pod: PodRef, container: String, wanted: Wanted },
    PortForward { pod: PodRef, ports: Vec<i32> },
}

/// Why a request makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    BadRequest(String),
}

/// Query parameters in order, decoded.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name, true), decode(value, true)))
        .collect()
}

pub fn parse(path: &str, query: &str) -> Result<Route, Refusal> {
    let segments: Vec<String> =
        path.split('/').filter(|segment| !segment.is_empty()).map(|segment| decode(segment, false)).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let pairs = query_pairs(query);
    let pod = |namespace: &str, name: &str, uid: Option<&str>| PodRef {
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.map(Into::into),
    };
    Ok(match segments.as_slice() {
        ["healthz"] | ["healthz", "ping" | "syncloop"] => Route::Healthz,
        ["pods"] => Route::Pods,
        ["runningpods"] => Route::RunningPods,
        ["stats", "summary"] => Route::Summary,
        ["metrics"] => Route::Metrics,
        ["metrics", "cadvisor"] => Route::MetricsCadvisor,
        ["metrics", "resource"] => Route::MetricsResource,
        ["containerLogs", namespace, name, container] => {
            Route::Logs { pod: pod(namespace, name, None), container: (*container).into() }
        }
        ["exec", namespace, name, rest @ ..] => {
            let (uid, container) = uid_and_container(rest)?;
            let command: Vec<String> =
                pairs.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone()).collect();
            Route::Exec {
                pod: pod(namespace, name, uid),
                container: container.into(),
                command,
                wanted: wanted(&pairs)?,
            }
        }
        ["attach", namespace, name, rest @ ..] => {
            let (uid, container) = uid_and_container(rest)?;
            Route::Attach { pod: pod(namespace, name, uid), container: container.into(), wanted: wanted(&pairs)? }
        }
        ["portForward", namespace, name, rest @ ..] if rest.len() <= 1 => {
            Route::PortForward { pod: pod(namespace, name, rest.first().copied()), ports: ports(&pairs)? }
        }
        _ => return Err(Refusal::NotFound),
    })
}

fn uid_and_container<'a>(rest: &[&'a str]) -> Result<(Option<&'a str>, &'a str), Refusal> {
    match rest {
        [container] => Ok((None, container)),
        [uid, container] => Ok((Some(uid), container)),
        _ => Err(Refusal::NotFound),
    }
}

fn wanted(pairs: &[(String, String)]) -> Result<Wanted, Refusal> {
    let flag = |name: &str| pairs.iter().any(|(key, value)| key == name && matches!(value.as_str(), "1" | "true"));
    let tty = flag("tty");
    // With a terminal the two outputs are one.
    let wanted = Wanted { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty, tty };
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Err(Refusal::BadRequest("you must specify at least 1 of stdin, stdout, stderr".into()));
    }
    Ok(wanted)
}

fn ports(pairs: &[(String, String)]) -> Result<Vec<i32>, Refusal> {
    let values = pairs.iter().filter(|(name, _)| name == "port").flat_map(|(_, value)| value.split(','));
    values
        .map(|value| value.parse::<u16>().ok().filter(|port| *port > 0).map(i32::from))
        .map(|port| port.ok_or_else(|| Refusal::BadRequest("port must be between 1 and 65535".into())))
        .collect()
}

/// Log options from the query, and whether the previous instance is meant.
pub fn log_options(query: &str, now: Timestamp) -> Result<(Options, bool), Refusal> {
    let mut options = Options::default();
    let mut previous = false;
    for (name, value) in query_pairs(query) {
        let invalid = |text: &str| {
            Refusal::BadRequest(format!("{{\"message\": \"{name}: Invalid value: \\\"{value}\\\": {text}\"}}"))
        };
        let flag = || match value.as_str() {
            "true" | "1" | "" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(invalid("must be a boolean")),
        };
        let number = |least: i64| match value.parse::<i64>() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(invalid(&format!("must be greater than or equal to {least}"))),
        };
        match name.as_str() {
            "follow" => options.follow = flag()?,
            "previous" => previous = flag()?,
            "timestamps" => options.timestamps = flag()?,
            // Compat: a tail that is not a number shows everything, as kubectl's `--tail=-1`.
            "tailLines" => options.tail_lines = value.parse().ok(),
            "limitBytes" => options.limit_bytes = Some(number(1)? as u64),
            "sinceSeconds" => options.since = now.checked_sub(SignedDuration::from_secs(number(1)?)).ok(),
            "sinceTime" => options.since = Some(value.parse().map_err(|_| invalid("must be an RFC 3339 time"))?),
            "stream" => {
                options.streams = match value.as_str() {
                    "" | "All" => Streams::All,
                    "Stdout" => Streams::Stdout,
                    "Stderr" => Streams::Stderr,
                    _ => return Err(invalid("must be one of All, Stdout, Stderr")),
                }
            }
            _ => {}
        }
    }
    Ok((options, previous))
}

/// `+` is a space in queries.
fn decode(text: &str, plus: bool) -> String {
    let text = if plus { text.replace('+', " ") } else { text.to_owned() };
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        golden::check!("routes.txt", |address| {
            let (path, query) = address.split_once('?').unwrap_or((address, ""));
            match parse(path, query) {
                Ok(route) => format!("{route:?}"),
                Err(refusal) => format!("!{refusal:?}"),
            }
        });
    }

    #[test]
    fn log_queries() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let query = "follow=true&previous=true&timestamps=true&tailLines=5&limitBytes=9&sinceSeconds=60&stream=Stderr";
        let (options, previous) = log_options(query, now).unwrap();
        assert!(previous && options.follow && options.timestamps);
        assert_eq!((options.tail_lines, options.limit_bytes, options.streams), (Some(5), Some(9), Streams::Stderr));
        assert_eq!(options.since, "2026-11-21T09:59:00Z".parse().ok());
        let (options, _) = log_options("sinceTime=2026-11-21T09%3A00%3A00Z&tailLines=-1", now).unwrap();
        assert_eq!((options.since, options.tail_lines), ("2026-11-21T09:00:00Z".parse().ok(), None));
        for bad in ["limitBytes=0", "sinceSeconds=x", "sinceTime=yesterday", "stream=Both", "follow=maybe"] {
            assert!(matches!(log_options(bad, now), Err(Refusal::BadRequest(_))), "{bad}");
        }
    }
}
