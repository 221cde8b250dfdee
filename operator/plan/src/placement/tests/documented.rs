//! `docs/placement.md` says what is so.

use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::{is_virtual, label, labelled, stored};

const PAGE: &str = include_str!("../../../../../docs/placement.md");

/// The pool of the page.
fn pool() -> [std::sync::Arc<VirtualNodePool>; 1] {
    let (_, example) = PAGE.split_once("```yaml").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    [std::sync::Arc::new(serde_saphyr::from_str(example).unwrap())]
}

#[test]
fn the_example_does_what_the_page_says() {
    let namespace = [("team", "batch")];
    let report = stored(&pool(), &labelled(&[("app", "report")]), &namespace);
    assert!(is_virtual(&report));
    let expected = json!({
        "app": "report", "alibabacloud.com/acs": "true",
        "alibabacloud.com/compute-class": "performance", "alibabacloud.com/compute-qos": "best-effort",
    });
    assert_eq!(report["metadata"]["labels"], expected);
    let annotation = |pod: &Value, key: &str| pod["metadata"]["annotations"][key].clone();
    assert_eq!(annotation(&report, "k8s.aliyun.com/eci-use-specs"), "2-4Gi");
    assert_eq!(annotation(&report, "virtualnodes.dev/placed-by"), "burst/report");

    let elsewhere = labelled(&[("app", "report")]);
    assert_eq!(stored(&pool(), &elsewhere, &[]), elsewhere);

    let web = stored(&pool(), &labelled(&[("app", "web")]), &[]);
    assert_eq!(label(&web, "virtualnodes.dev/overflow"), Some("burst"));
    assert_eq!(web["spec"], labelled(&[])["spec"]);
}
