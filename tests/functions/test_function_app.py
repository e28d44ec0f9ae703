"""The Function App has the triggers that it should, bound as they should be."""

import function_app

HTTP = {
    "targets": ("GET", "targets"),
    "target": ("GET", "targets/{target}"),
    "releases": ("GET", "targets/{target}/releases"),
    "release": ("GET", "targets/{target}/releases/{release}"),
    "request": ("GET", "targets/{target}/requests/{request}"),
    "request_release": ("POST", "targets/{target}/releases"),
    "request_rollback": ("POST", "targets/{target}/rollback"),
    "hold": ("POST", "targets/{target}/hold"),
    "resume": ("POST", "targets/{target}/resume"),
}


def test_exactly_these_functions_are_there() -> None:
    found = {each.get_function_name(): each.get_trigger().get_dict_repr() for each in function_app.app.get_functions()}
    routes = {name: trigger for name, trigger in found.items() if trigger["type"] == "httpTrigger"}
    assert {
        name: (trigger["methods"][0].name, trigger["route"], trigger["authLevel"].name)
        for name, trigger in routes.items()
    } == {name: (method, route, "FUNCTION") for name, (method, route) in HTTP.items()}
    assert {name: trigger["type"] for name, trigger in found.items() if name not in routes} == {
        "model_published": "eventGridTrigger",
        "image_pushed": "eventGridTrigger",
        "advance": "queueTrigger",
        "sweep": "timerTrigger",
    }
    assert found["advance"]["queueName"] == "%SHIPMATE_QUEUE%"
    assert found["sweep"]["schedule"] == "%SHIPMATE_SWEEP_SCHEDULE%"
