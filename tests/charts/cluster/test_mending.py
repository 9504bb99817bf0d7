"""A mistake in the values: it is explained, and mended by an upgrade."""

from harness.functions import double


def test_a_wrong_image_is_explained_and_the_right_one_mends_it(make_release, make_executor, images):
    wrong = "localhost/no-such-image:1"
    release = make_release({"worker": {"image": wrong, "provider": {"image_grace": 5}}})
    release.install()
    release.wait_running()
    said = str(make_executor(release).submit(double, 1).exception(timeout=120))
    assert wrong in said and "pull" in said
    assert wrong in release.run("status", release.name)
    events = release.kubectl(
        "get", "events", "--field-selector", "involvedObject.kind=Pod", "--output", "jsonpath={..message}"
    )
    assert wrong in events
    before = release.agent()
    release.upgrade({"worker": {"image": images.python.name}})
    gone = ["get", "pod", before, "--namespace", release.namespace]
    release.cluster.wait(lambda: release.cluster.run_kubectl(*gone).returncode, "the agent to be replaced", 90)
    release.wait_running()
    # The same call, from the same client, to the same user endpoint.
    assert make_executor(release).submit(double, 2).result(timeout=120) == 4
    release.cluster.wait(lambda: not release.workers(), "no pod to be left", 60)
