//! The Helm chart, rendered: by an engine for Go's templates, with those of Helm's functions that the chart uses. Helm
//! itself is in no registry that the project builds from.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gtmpl::{Context, FuncError, Template, Value};
use rstest::rstest;
use yaml_rust2::{Yaml, YamlEmitter, YamlLoader};

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/chart")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(chart().join(name)).unwrap()
}

fn parse(text: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

/// What a template sees of a file of values. An object, not a map: a key that is not there is an error.
fn value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Boolean(value) => Value::from(*value),
        Yaml::Integer(value) => Value::from(*value),
        Yaml::String(value) => Value::from(value.as_str()),
        Yaml::Array(values) => Value::Array(values.iter().map(value).collect()),
        Yaml::Hash(entries) => Value::Object(
            entries.iter().map(|(key, of)| (key.as_str().unwrap().to_owned(), value(of))).collect(),
        ),
        _ => Value::Nil,
    }
}

/// The way back, for `toYaml`.
fn yaml(value: &Value) -> Yaml {
    match value {
        Value::Bool(value) => Yaml::Boolean(*value),
        Value::Number(number) => Yaml::Integer(number.as_i64().unwrap()),
        Value::String(text) => Yaml::String(text.clone()),
        Value::Array(values) => Yaml::Array(values.iter().map(yaml).collect()),
        Value::Object(entries) | Value::Map(entries) => {
            Yaml::Hash(entries.iter().map(|(key, of)| (Yaml::String(key.clone()), yaml(of))).collect())
        }
        _ => Yaml::Null,
    }
}

fn wrong(text: impl Into<String>) -> FuncError {
    FuncError::Generic(text.into())
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::NoValue | Value::Nil) || *value == Value::from("") || *value == Value::from(false)
}

fn text(value: &Value) -> Result<&str, FuncError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(format!("{other:?} is no text"))),
    }
}

fn to_yaml(arguments: &[Value]) -> Result<Value, FuncError> {
    let [of] = arguments else { return Err(wrong("toYaml takes one value")) };
    let mut emitted = String::new();
    YamlEmitter::new(&mut emitted).dump(&yaml(of)).map_err(|error| wrong(error.to_string()))?;
    Ok(Value::from(emitted.trim_start_matches("---").trim()))
}

fn nindent(arguments: &[Value]) -> Result<Value, FuncError> {
    let [Value::Number(count), of] = arguments else {
        return Err(wrong("nindent takes a number and a text"));
    };
    let indent = " ".repeat(usize::try_from(count.as_u64().unwrap_or_default()).unwrap());
    let lines: Vec<String> = text(of)?.lines().map(|line| format!("\n{indent}{line}")).collect();
    Ok(Value::from(lines.concat()))
}

fn default(arguments: &[Value]) -> Result<Value, FuncError> {
    let [otherwise, of] = arguments else { return Err(wrong("default takes two values")) };
    Ok(if is_empty(of) { otherwise.clone() } else { of.clone() })
}

fn required(arguments: &[Value]) -> Result<Value, FuncError> {
    let [why, of] = arguments else { return Err(wrong("required takes a text and a value")) };
    if is_empty(of) { Err(wrong(text(why)?)) } else { Ok(of.clone()) }
}

fn quote(arguments: &[Value]) -> Result<Value, FuncError> {
    let [of] = arguments else { return Err(wrong("quote takes one value")) };
    Ok(Value::from(format!("{:?}", text(of)?)))
}

/// Renders a template of a release named `sea` with the chart's values, changed by `set`: lines of YAML.
fn render(name: &str, set: &str) -> Result<String, String> {
    let mut values = parse(&read("values.yaml"));
    if !set.is_empty() {
        merge(&mut values, parse(set));
    }
    let version = parse(&read("Chart.yaml"))["appVersion"].as_str().unwrap().to_owned();
    let object = |entries: &[(&str, Value)]| {
        Value::Object(
            entries.iter().map(|(key, of)| ((*key).to_owned(), of.clone())).collect::<HashMap<_, _>>(),
        )
    };
    let top = object(&[
        ("Values", value(&values)),
        ("Release", object(&[("Name", Value::from("sea")), ("Service", Value::from("Helm"))])),
        ("Chart", object(&[("AppVersion", Value::from(version))])),
    ]);
    let mut template = Template::default();
    for (name, function) in [
        ("toYaml", to_yaml as gtmpl::Func),
        ("nindent", nindent),
        ("default", default),
        ("required", required),
        ("quote", quote),
    ] {
        template.add_func(name, function);
    }
    template.parse(read(&format!("templates/{name}"))).map_err(|error| error.to_string())?;
    template.render(&Context::from(top)).map_err(|error| error.to_string())
}

fn merge(into: &mut Yaml, from: Yaml) {
    match (into, from) {
        (Yaml::Hash(into), Yaml::Hash(from)) => {
            for (key, of) in from {
                merge(into.entry(key).or_insert(Yaml::Null), of);
            }
        }
        (into, from) => *into = from,
    }
}

const IMAGE: &str = "image: { repository: example.org/nacre/installer }";

fn daemon_set(set: &str) -> Yaml {
    parse(&render("daemonset.yaml", &format!("{IMAGE}\n{set}")).unwrap())
}

#[test]
fn the_daemon_set_installs_from_the_releases_image() {
    let set = daemon_set("");
    assert_eq!((set["kind"].as_str(), set["apiVersion"].as_str()), (Some("DaemonSet"), Some("apps/v1")));
    assert_eq!(set["metadata"]["name"].as_str(), Some("sea-installer"));
    let pod = &set["spec"]["template"];
    let labels = &set["spec"]["selector"]["matchLabels"];
    assert_eq!(labels, &pod["metadata"]["labels"]);
    assert_eq!(labels["app.kubernetes.io/instance"].as_str(), Some("sea"));
    let spec = &pod["spec"];
    assert_eq!(
        (spec["hostPID"].as_bool(), spec["automountServiceAccountToken"].as_bool()),
        (Some(true), Some(false))
    );
    assert_eq!(spec["nodeSelector"]["kubernetes.io/arch"].as_str(), Some("amd64"));
    assert_eq!(spec["tolerations"].as_vec().map(Vec::len), Some(0));
    assert!(spec["imagePullSecrets"].is_badvalue());

    let container = &spec["containers"][0];
    let image = format!("example.org/nacre/installer:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"].as_str(), Some(image.as_str()));
    let words: Vec<_> =
        container["command"].as_vec().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words, ["/usr/local/bin/nacre", "install", "--host-root", "/host", "--stay"]);
    assert!(container["args"].is_badvalue());
    assert_eq!(container["securityContext"]["privileged"].as_bool(), Some(true));
    let (mount, volume) = (&container["volumeMounts"][0], &spec["volumes"][0]);
    assert_eq!((mount["mountPath"].as_str(), &mount["name"]), (Some("/host"), &volume["name"]));
    assert_eq!(volume["hostPath"]["path"].as_str(), Some("/"));
}

#[test]
fn values_that_are_set_are_used() {
    let set = daemon_set(
        "mode: uninstall\nrestartContainerd: false\nimagePullSecrets: [shell]\n\
         tolerations: [{ key: sea, operator: Exists }]\nnodeSelector: { sea: deep }",
    );
    let spec = &set["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["command"][1].as_str(), Some("uninstall"));
    assert_eq!(container["args"][0].as_str(), Some("--no-restart"));
    assert_eq!(spec["imagePullSecrets"][0]["name"].as_str(), Some("shell"));
    assert_eq!(spec["tolerations"][0]["operator"].as_str(), Some("Exists"));
    assert_eq!(spec["nodeSelector"]["sea"].as_str(), Some("deep"));
    let tagged = parse(&render("daemonset.yaml", "image: { repository: r, tag: '9' }").unwrap());
    assert_eq!(tagged["spec"]["template"]["spec"]["containers"][0]["image"].as_str(), Some("r:9"));
}

#[test]
fn an_image_must_be_named() {
    let error = render("daemonset.yaml", "").unwrap_err();
    assert!(error.contains("image.repository"), "{error}");
}

#[test]
fn the_runtime_class_is_that_of_the_plain_manifest() {
    let rendered = parse(&render("runtimeclass.yaml", "").unwrap());
    let plain = parse(&std::fs::read_to_string(chart().join("../runtimeclass.yaml")).unwrap());
    for key in ["apiVersion", "kind", "handler", "overhead"] {
        assert_eq!(rendered[key], plain[key], "{key}");
    }
    assert_eq!(rendered["metadata"]["name"], plain["metadata"]["name"]);
    assert_eq!(rendered["scheduling"]["nodeSelector"]["kubernetes.io/arch"].as_str(), Some("amd64"));
}

#[rstest]
#[case("NOTES.txt", "daemonset/sea-installer")]
#[case("NOTES.txt", "runtimeClassName: nacre")]
fn what_helm_says_afterwards_names_the_release(#[case] name: &str, #[case] part: &str) {
    let text = render(name, IMAGE).unwrap();
    assert!(text.contains(part) && !text.contains("{{"), "{text}");
}
