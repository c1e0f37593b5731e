//! TrafficRoute.

use super::*;

/// A Universal route with this `conf`.
fn route(conf: Value) -> Value {
    json!({
        "type": "TrafficRoute", "name": "a", "mesh": "default",
        "sources": [{"match": {"kuma.io/service": "*"}}],
        "destinations": [{"match": {"kuma.io/service": "a"}}],
        "conf": conf,
    })
}

fn to(service: &str) -> Value {
    json!({"kuma.io/service": service})
}

#[track_caller]
fn refuses_conf(conf: Value, expected: &[(&str, &str)]) {
    refuses(&route(conf), Version::V2_14, Stage::Validator, expected);
}

#[test]
fn selects_sources_and_one_destination() {
    let mut document = route(json!({"destination": to("a")}));
    accepts(&document, Version::V2_14);
    document["sources"] = json!([null, {"match": {"version": "v 1"}}]);
    document["destinations"] = json!([{"match": {"kuma.io/service": "a", "version": "*"}}]);
    let expected = [
        ("destinations[0].match", "must consist of exactly one tag \"kuma.io/service\""),
        ("destinations[0].match[\"version\"]", "tag \"version\" is not allowed"),
        ("sources[0].match", "mandatory tag \"kuma.io/service\" is missing"),
        ("sources[0].match", "must have at least one tag"),
        ("sources[1].match", "mandatory tag \"kuma.io/service\" is missing"),
        ("sources[1].match[\"version\"]", "tag value must consist of"),
    ];
    refuses(&document, Version::V2_14, Stage::Validator, &expected);
    let document = json!({"type": "TrafficRoute", "name": "a", "mesh": "default"});
    let expected = [
        ("conf", "cannot be empty"),
        ("destinations", "must have at least one element"),
        ("sources", "must have at least one element"),
    ];
    refuses(&document, Version::V2_14, Stage::Validator, &expected);
}

#[test]
fn sends_traffic_to_a_destination_or_a_split() {
    refuses_conf(json!({}), &[("conf", "requires either \"destination\" or \"split\"")]);
    refuses_conf(json!({"split": []}), &[("conf", "requires either \"destination\" or \"split\"")]);
    let split = json!([{"weight": 1, "destination": to("a")}]);
    let both = json!({"split": split, "destination": to("a")});
    refuses_conf(both, &[("conf", "\"split\" cannot be defined at the same time as \"destination\"")]);
    let expected = [
        ("conf.destination", "mandatory tag \"kuma.io/service\" is missing"),
        ("conf.destination", "must have at least one tag"),
    ];
    refuses_conf(json!({"destination": {}}), &expected);
    let expected = [("conf.split", "there must be at least one"), ("conf.split[0].weight", "needs to be defined")];
    refuses_conf(json!({"split": [{"destination": to("a")}, {"weight": 0, "destination": to("b")}]}), &expected);
    // The sum has 32 bits, there as here.
    let wraps = json!([{"weight": 4_294_967_295_u32, "destination": to("a")}, {"weight": "1", "destination": to("b")}]);
    refuses_conf(
        json!({"split": wraps}),
        &[("conf.split", "there must be at least one split entry with weight above 0")],
    );
}

#[test]
fn checks_http_matches_and_changes() {
    let header = |name: &str, value: &str| json!({"name": name, "value": value});
    let http = |matched: Value, modify: Value| json!({"match": matched, "modify": modify, "destination": to("a")});
    let conf = json!({"destination": to("a"), "http": [
        http(json!({}), json!({"path": {}, "host": {}})),
        http(json!({"headers": {}}), json!({"path": {"rewritePrefix": ""}, "host": {"value": ""}})),
        http(
            json!({"method": {}, "path": {"regex": ""}, "headers": {"": {"prefix": ""}, "a": {"exact": ""}}}),
            json!({"path": {"rewritePrefix": "/a"}, "host": {"value": "x", "fromPath": {"pattern": "a"}}}),
        ),
        http(
            json!({"path": {"prefix": "/a"}}),
            json!({
                "path": {"rewritePrefix": "/b", "regex": null},
                "requestHeaders": {"add": [header("host", "a"), header("", "")], "remove": [{"name": ":path"}, {}]},
                "responseHeaders": {"add": [header("Host", "a")]},
            }),
        ),
    ]});
    let either = "either \"rewritePrefix\" or \"regex\" has to be set";
    let pseudo = "host header and HTTP/2 pseudo-headers are not allowed to be modified";
    refuses_conf(
        conf,
        &[
            ("conf.http[0].match", "must be present and contain at least one of the elements"),
            ("conf.http[0].modify.host", "either \"value\" or \"fromPath\" has to be set"),
            ("conf.http[0].modify.path", either),
            ("conf.http[1].match.headers", "must contain at least one element"),
            ("conf.http[1].modify.host.value", "cannot be empty"),
            ("conf.http[1].modify.path.rewritePrefix", "cannot be empty"),
            ("conf.http[2].match.headers[\"\"]", "cannot be empty"),
            ("conf.http[2].match.headers[\"\"].prefix", "cannot be empty"),
            ("conf.http[2].match.method", "cannot be empty. Available options"),
            ("conf.http[2].match.path.regex", "cannot be empty"),
            ("conf.http[2].modify.host.fromPath.substitution", "cannot be empty"),
            ("conf.http[2].modify.path.rewritePrefix", "can only be set when .http.match.path.prefix is not empty"),
            ("conf.http[3].modify.requestHeaders.add[0].name", pseudo),
            ("conf.http[3].modify.requestHeaders.add[1].name", "cannot be empty"),
            ("conf.http[3].modify.requestHeaders.add[1].value", "cannot be empty"),
            ("conf.http[3].modify.requestHeaders.remove[0].name", pseudo),
            ("conf.http[3].modify.requestHeaders.remove[1].name", "cannot be empty"),
            ("conf.http[3].modify.responseHeaders.add[0].name", pseudo),
        ],
    );
}

#[test]
fn checks_how_load_is_balanced() {
    let conf = |balancer: Value| json!({"destination": to("a"), "loadBalancer": balancer});
    for balancer in [
        json!({"leastRequest": {}}),
        json!({"least_request": {"choice_count": 2}}),
        json!({"ringHash": {"hashFunction": "XX_HASH", "minRingSize": "64"}}),
        // The later one counts.
        json!({"maglev": {}, "ringHash": {}}),
        json!({"roundRobin": null}),
    ] {
        accepts(&route(conf(balancer)), Version::V2_14);
    }
    let expected = [("conf.loadBalancer.leastRequest.choiceCount", "value must be greater than or equal to 2")];
    refuses_conf(conf(json!({"leastRequest": {"choiceCount": 1}})), &expected);
    let expected = [("conf.loadBalancer.ringHash.hashFunction", "must have a valid hash function")];
    refuses_conf(conf(json!({"ringHash": {}})), &expected);
}

#[test]
fn tells_what_does_not_decode_in_gos_words() {
    let weight = |weight: Value| json!({"split": [{"weight": weight, "destination": to("a")}]});
    for (conf, text) in [
        (json!([]), "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"),
        (json!({"split": {}}), "json: cannot unmarshal object into Go value of type []json.RawMessage"),
        (json!({"destination": {"a": 1}}), "json: cannot unmarshal number into Go value of type string"),
        (weight(json!(-1)), "json: cannot unmarshal number -1 into Go value of type uint32"),
        (weight(json!(1.5)), "json: cannot unmarshal number 1.5 into Go value of type uint32"),
        (weight(json!(4_294_967_296_u64)), "json: cannot unmarshal number 4294967296 into Go value of type uint32"),
        (weight(json!(true)), "json: cannot unmarshal bool into Go value of type uint32"),
        (weight(json!("true")), "json: cannot unmarshal bool into Go value of type uint32"),
        (weight(json!("")), "unexpected end of JSON input"),
        (weight(json!("nine")), "invalid character 'i' in literal null (expecting 'u')"),
        (weight(json!("10%")), "invalid character '%' after top-level value"),
        (weight(json!("-x")), "invalid character 'x' in numeric literal"),
        (weight(json!("many")), "invalid character 'm' looking for beginning of value"),
    ] {
        let mut object = route(conf.clone());
        let expected = format!("invalid TrafficRoute object: {text:?}");
        refuses(&object, Version::V2_14, Stage::Decode, &[("", &expected)]);
        // Kubernetes tells the bare text, and the same of `spec`.
        object = json!({
            "apiVersion": "kuma.io/v1alpha1", "kind": "TrafficRoute", "mesh": "default",
            "metadata": {"name": "a"}, "spec": {"conf": conf},
        });
        refuses(&object, Version::V2_14, Stage::Decode, &[("", text)]);
    }
    // In quotes, null is no number and no mistake.
    accepts(
        &route(json!({"split": [
            {"weight": "null", "destination": to("a")}, {"weight": 1.0, "destination": to("a")},
        ]})),
        Version::V2_14,
    );
}

#[test]
fn the_envelope_decodes_first() {
    let mut document = route(json!([]));
    document["labels"] = json!({"a": 1});
    let text = "invalid TrafficRoute object: \"json: cannot unmarshal number into Go struct field ResourceMeta.labels of \
                type string\"";
    refuses(&document, Version::V2_14, Stage::Decode, &[("", text)]);
    document["labels"] = Value::Null;
    document["creationTime"] = json!("yesterday");
    let text = "invalid TrafficRoute object: \"parsing time \\\"yesterday\\\" as";
    refuses(&document, Version::V2_14, Stage::Decode, &[("", text)]);
}
