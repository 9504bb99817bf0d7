import pytest
import yaml
from harness import charts
from harness.charts import ENDPOINT, VALUES

FILES = sorted(path.name for path in VALUES.glob("*.yaml"))


def test_helm_finds_nothing(helm):
    said = helm.run("lint", "--strict", ENDPOINT)
    assert "0 chart(s) failed" in said and "[WARNING]" not in said, said


@pytest.mark.parametrize("name", FILES)
def test_helm_finds_nothing_with_values(helm, name):
    helm.run("lint", "--strict", ENDPOINT, "--values", VALUES / name)


@pytest.mark.parametrize("name", FILES)
def test_every_object_says_what_it_is_and_where_it_goes(render, name):
    for (kind, object_name, namespace), thing in render(yaml.safe_load((VALUES / name).read_text())).items():
        labels = thing["metadata"]["labels"]
        assert namespace, f"{kind} {object_name} has no namespace"
        assert labels["app.kubernetes.io/instance"] == "lab", f"{kind} {object_name}"


def test_the_readme_lists_every_value_as_its_comment_says():
    assert charts.written(ENDPOINT) == charts.table(ENDPOINT), (
        "write it anew: PYTHONPATH=tests python3 -m harness.charts helm/endpoint"
    )


def test_every_value_has_a_comment():
    listed = {row.path for row in charts.rows((ENDPOINT / "values.yaml").read_text())}

    def missing(values: dict, path: str = "") -> list[str]:
        found = []
        for key, value in values.items():
            here = f"{path}{key}"
            if here in listed:
                continue
            found += missing(value, f"{here}.") if isinstance(value, dict) and value else [here]
        return found

    assert missing(yaml.safe_load((ENDPOINT / "values.yaml").read_text())) == []
