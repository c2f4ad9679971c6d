"""The rules for template.yaml. Each is a function that takes the parsed template and returns the list of its faults.

They read the template as written, with its loops expanded. cfn-lint and checkov read the transformed template, and so
check what SAM adds.

What a function may do is declared in functions/NAME/Cargo.toml, under [package.metadata.endpoint]: it is beside the code
that does it, and goes with the folder when that is renamed or removed. docs/endpoints.md lists the keys.
"""

import json
import re
from collections.abc import Iterator
from itertools import pairwise, product

from emulator import references, walk
from new import local
from unchanged import function_at

GATEWAY_SECONDS = 30
NO_VALUE = {"Ref": "AWS::NoValue"}

# The ARN of a log group's streams in IAM. It ends with an asterisk, as `!GetAtt Logs.Arn` does.
STREAMS = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:%s:*"

# IAM has no resource types for these actions: they can be granted on "*" only.
ACTIONS_WITHOUT_RESOURCE = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]

LOG = {"logs:CreateLogStream", "logs:PutLogEvents"}


def add(name: str, line: str) -> str:
    return f"add `{line}` to [package.metadata.endpoint] in functions/{name}/Cargo.toml"


DECLARATIONS = ["caches", "example", "links", "permissions", "public", "public-url"]
LINKS = ["aws", "http"]


def of_type(template: dict, kind: str) -> dict[str, dict]:
    return {name: r for name, r in template["Resources"].items() if r["Type"] == kind}


def functions(template: dict) -> dict[str, dict]:
    """Returns each function's properties, including Globals as SAM merges them, by its logical id."""
    # It takes a second to load, and most tests have no use for it.
    from samtranslator.plugins.globals.globals import Globals

    kind, shared = "AWS::Serverless::Function", Globals(template)
    return {name: shared.merge(kind, function["Properties"]) for name, function in of_type(template, kind).items()}


def code(function: dict) -> str:
    """Returns the name of the folder in functions/ that the function is built from."""
    return function["CodeUri"].removeprefix("functions/")


def routes_of(function: dict) -> Iterator[tuple[str, str]]:
    """Yields the path and method of each route. A function can also have a URL, a queue or a schedule instead."""
    for event in function.get("Events", {}).values():
        if event["Type"] == "HttpApi":
            route = event.get("Properties", {})
            yield route.get("Path", "$default"), route.get("Method", "ANY").upper()


def parameters_in(template: dict, node: object) -> set[str]:
    """Returns the parameters that `node` depends on, also through conditions."""
    conditions = [template["Conditions"][mapping["Fn::If"][0]] for mapping in walk(node) if "Fn::If" in mapping]
    names = references(node).union(*(parameters_in(template, condition) for condition in conditions))
    return names & template["Parameters"].keys()


def time_outs_nest(template: dict) -> list[str]:
    """One attempt < the upstream's budget < the function < the gateway, whatever the conditions and parameters are. An
    upstream's limits are the variables X_ATTEMPT_TIMEOUT_MS and X_TIMEOUT_MS."""
    wrong = []
    for name, function in functions(template).items():
        variables = function.get("Environment", {}).get("Variables", {})
        timeouts = {key: value for key, value in variables.items() if key.endswith("_TIMEOUT_MS")}
        routed = [("the gateway's limit", GATEWAY_SECONDS, 1000)] if any(routes_of(function)) else []
        chains = [[("Timeout", function["Timeout"], 1000), *routed]]
        for upstream in {re.sub("(_ATTEMPT)?_TIMEOUT_MS$", "", key) for key in timeouts}:
            limits = [f"{upstream}_ATTEMPT_TIMEOUT_MS", f"{upstream}_TIMEOUT_MS"]
            if limits[1] not in timeouts:
                wrong.append(f"{name} has {limits[0]}, but no limit for all attempts: add {limits[1]} to its variables")
            chains.append([*((key, timeouts[key], 1) for key in limits if key in timeouts), chains[0][0]])
        conditions = sorted({node["Fn::If"][0] for node in walk([timeouts, function["Timeout"]]) if "Fn::If" in node})
        for chain, held in product(chains, product([True, False], repeat=len(conditions))):
            chain = [(key, chosen(value, dict(zip(conditions, held))), factor) for key, value, factor in chain]
            limits = [(key, [factor * number for number in numbers(template, value)]) for key, value, factor in chain if value != NO_VALUE]
            wrong += [f"{name}: {key} is not a number, a parameter or an !If of them" for key, found in limits if not found]
            for (key, short), (within, long) in pairwise(limit for limit in limits if limit[1]):
                if max(short) >= min(long):
                    wrong.append(f"{name}: {key} can be {max(short)} ms, which must be less than {within}, {min(long)} ms")
    return wrong


def chosen(value: object, conditions: dict[str, bool]) -> object:
    """`value` without its !If."""
    while isinstance(value, dict) and "Fn::If" in value:
        condition, *branches = value["Fn::If"]
        value = branches[not conditions[condition]]
    return value


def numbers(template: dict, value: object) -> list[int]:
    """The numbers that `value` can be: of a parameter, its default, its limits and its list. Empty: this cannot be read."""
    parameter = template["Parameters"].get(value.get("Ref"), {}) if isinstance(value, dict) else {"Default": value}
    found = [parameter.get(key) for key in ("Default", "MinValue", "MaxValue")] + parameter.get("AllowedValues", [])
    return [int(number) for number in found if str(number).isdecimal()]


def failures_are_rolled_back_and_found(template: dict) -> list[str]:
    """A function has an alarm for each way in which it can fail its callers. In prod, it rolls back on its errors. An operator finds it on
    the dashboard and in the saved queries."""
    wrong, groups, resources = [], set(), template["Resources"]
    dashboard = json.dumps(of_type(template, "AWS::CloudWatch::Dashboard"))
    for name, function in functions(template).items():
        own = name.removesuffix("Function")
        groups.add(f"{own}Logs")
        if f"{own}Role" not in resources:
            added = f"add {code(function)} to Fn::ForEach::Functions in template.yaml"
            wrong.append(f"no loop makes {own}Role, its log group and its alarms: {added}")
            continue
        for alarm in (f"{own}{what}" for what in ("Errors", "Throttles", "ServerErrorRate", "Slow")):
            if alarm not in resources or resources[alarm].get("Condition") != resources[name].get("Condition"):
                wrong.append(f"{name} has no {alarm} with its condition: add it to the loop that makes {own}Role in template.yaml")
        if function["DeploymentPreference"].get("Alarms") != {"Fn::If": ["IsProd", [{"Ref": f"{own}Errors"}], [NO_VALUE]]}:
            wrong.append(f"{name} does not roll back on {own}Errors in prod")
        if function.get("FunctionName", {}).get("Fn::Sub", name) + r"\\\"" not in dashboard:
            wrong.append(f"{name} is not on the dashboard: add its FunctionName to `Of` there")
    for name, query in of_type(template, "AWS::Logs::QueryDefinition").items():
        searched = {mapping["Ref"] for mapping in walk(query["Properties"]["LogGroupNames"]) if "Ref" in mapping}
        if searched - {"AWS::NoValue"} != groups:
            more = [f"add `- !Ref {group}`" for group in sorted(groups - searched)]
            more += [f"remove `- !Ref {group}`" for group in sorted(searched - groups - {"AWS::NoValue"})]
            wrong.append(f"{name} searches other log groups than those of the functions: {', '.join(more)} in its LogGroupNames")
    return wrong


def alarms_watch_what_is_written(template: dict, namespace: str) -> list[str]:
    """Each alarm and each graph reads metrics of AWS, or of the namespace that the functions are compiled with."""
    used = {node["Namespace"] for node in walk(template["Resources"]) if isinstance(node.get("Namespace"), str)}
    used |= set(re.findall(r"SEARCH\(\\?'\{([^,]+),", str(of_type(template, "AWS::CloudWatch::Dashboard"))))
    return [
        f"template.yaml reads metrics of {found}, but METRICS_NAMESPACE in .cargo/config.toml is {namespace}"
        for found in sorted(used) if not found.startswith("AWS/") and found != namespace
    ]


def callers_are_not_logged(template: dict) -> list[str]:
    """The gateway's access log has neither the caller's address nor the query."""
    lines = [api["Properties"]["AccessLogSettings"]["Format"] for api in of_type(template, "AWS::Serverless::HttpApi").values()]
    return [line for line in lines if re.search(r"identity|query", line, re.IGNORECASE)]


def versions_follow_parameters(template: dict) -> list[str]:
    """A version's description names exactly the parameters that the version freezes.

    If one is missing, the alias keeps serving the old value. If there is one too many, a deployment that changes only
    that one fails: Lambda publishes no second version of an unchanged function. (A capacity provider cannot be changed
    in place: it is removed with its function, and then set again, see docs/deploying.md.)
    """
    frozen = ("Environment", "LoggingConfig", "MemorySize", "Timeout", "Tracing", "Handler")
    return [
        f"{name}: its version freezes {sorted(needed)}, but its VersionDescription names {sorted(named)}: write"
        f" `VersionDescription: !Sub {' '.join('${%s}' % parameter for parameter in sorted(needed))}`"
        for name, function in functions(template).items()
        if (needed := parameters_in(template, [function.get(key) for key in frozen]))
        != (named := parameters_in(template, function.get("VersionDescription")))
    ]


def privileges_are_least(template: dict, declared: dict[str, dict]) -> list[str]:
    """Each function has its own role, which grants the actions that the function declares, on what it declares. All may
    log and send traces.
    """
    wrong = []
    roles = [function.get("Role", {}).get("Fn::GetAtt", [None])[0] for function in functions(template).values()]
    if len(set(roles)) != len(roles) or None in roles:
        wrong.append(f"functions share roles, or let SAM make them: {roles}")
    for name, resource in template["Resources"].items():
        for statement in walk(resource) if resource["Type"].startswith("AWS::IAM::") else []:
            if "Effect" not in statement or listed(statement.get("Action")) == ["sts:AssumeRole"]:
                continue
            actions, resources = listed(statement.get("Action")), list(named(statement.get("Resource")))
            if "*" in resources and actions != ACTIONS_WITHOUT_RESOURCE or "*" in str(actions):
                wrong.append(f"{name} has a wildcard: {statement}")
            if not actions or not resources:
                wrong.append(f"{name} is not limited to actions on resources: {statement}")
    for (name, function), role_name in zip(functions(template).items(), roles):
        role = template["Resources"].get(role_name, {}).get("Properties", {})
        attached = [
            policy["Properties"]
            for policy in of_type(template, "AWS::IAM::Policy").values()
            if {"Ref": role_name} in walk(policy["Properties"]["Roles"])
        ]
        granted: dict[str, set] = {}
        for statement in walk([role.get("Policies", []), attached]):
            if statement.get("Effect") == "Allow":
                for resource in named(statement.get("Resource")):
                    granted.setdefault(resource, set()).update(listed(statement.get("Action")))
        group = template["Resources"].get(function["LoggingConfig"].get("LogGroup", {}).get("Ref"))
        streams = group and STREAMS % group["Properties"]["LogGroupName"]["Fn::Sub"]
        if granted.pop(streams, None) != LOG:
            wrong.append(f"{name} may not write to its own log group, or may do more with it")
        permissions = declared.get(code(function), {}).get("permissions", {})
        for resource in granted.keys() | permissions.keys():
            actions, allowed = granted.get(resource, set()), set(permissions.get(resource, []))
            if more := sorted(actions - allowed):
                line = f"permissions.{json.dumps(resource)} = {json.dumps(sorted(actions | allowed))}"
                wrong.append(f"{name} may {more} on {resource}, which it does not declare: {add(code(function), line)}")
            if fewer := sorted(allowed - actions):
                wrong.append(
                    f"{name} declares {fewer} on {resource}, which template.yaml does not grant: add a policy for its role"
                    f" there, or remove them from [package.metadata.endpoint] in functions/{code(function)}/Cargo.toml"
                )
        if role.get("ManagedPolicyArns") != [{"Ref": "TracePolicy"}] or "Policies" in function:
            wrong.append(f"{name} has policies from elsewhere: write an AWS::IAM::Policy for {role_name} instead")
    return wrong


def unknown_declarations(declared: dict[str, dict]) -> list[str]:
    """The declarations that nobody reads: their names, or values, are written wrong."""
    wrong = []
    for name, declaration in declared.items():
        links = listed(declaration.get("links"))
        for what, written, known in (("there is", declaration, DECLARATIONS), ("`links` has", links, LINKS)):
            can = f"it can have {', '.join(f'`{it}`' for it in known)}"
            wrong += [f"[package.metadata.endpoint] in functions/{name}/Cargo.toml: {what} no `{it}`: {can}" for it in written if it not in known]
    return wrong


def listed(value: object) -> list:
    """CloudFormation takes one item for a list of one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def named(resources: object) -> Iterator[str]:
    """Yields the name of each resource in a statement: its logical id or parameter, with what follows its ARN, such as
    `Orders` or `Orders/index/by-day`."""
    for resource in listed(resources):
        if isinstance(resource, str):
            yield resource
        elif "Fn::If" in resource:
            yield from named(resource["Fn::If"][1:])
        elif "Fn::Sub" in resource:
            below = re.match(r"\$\{\w+(\.Arn)?\}", text := str(resource["Fn::Sub"]))
            yield re.sub(r"\$\{(\w+)(\.Arn)?\}", r"\1", text) if below else text
        elif "Fn::GetAtt" in resource:
            yield ".".join(resource["Fn::GetAtt"]).removesuffix(".Arn")
        elif resource != NO_VALUE:
            yield resource.get("Ref", str(resource))


def code_is_told_its_resources(template: dict, declared: dict[str, dict]) -> list[str]:
    """What a function may use has a name of CloudFormation's, which it gets by a variable, or is where its events come from or go to. A
    key needs no name: what is encrypted with it has one."""
    wrong = []
    for name, function in functions(template).items():
        told = references([value for key, value in function.items() if key != "VersionDescription"])
        permissions = declared.get(code(function), {}).get("permissions", {})
        own = {re.split("[/.]", resource)[0] for resource, actions in permissions.items() if not all(it.startswith("kms:") for it in actions)}
        for resource in sorted(own & (template["Resources"].keys() | template["Parameters"].keys()) - told):
            variable = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", resource).upper()
            line = f"`{variable}: !Ref {resource}` to the Variables of its Environment in template.yaml"
            wrong.append(f"no variable of {name} names {resource}, which it may use: add {line}")
    return wrong


def data_is_kept_and_caches_go(template: dict, declared: dict[str, dict]) -> list[str]:
    """A table costs nothing while unused, and is encrypted. In prod, its data outlives the stack, and its state of any
    second of the last weeks can be restored. A cache expires its items, and is deleted with the stack."""
    wrong = []
    caches = {cache for function in declared.values() for cache in function.get("caches", [])}
    for name, table in of_type(template, "AWS::DynamoDB::Table").items():
        properties = table["Properties"]
        policies = [table.get("DeletionPolicy"), table.get("UpdateReplacePolicy")]
        rules = [
            ("is billed for more than its use", properties.get("BillingMode") == "PAY_PER_REQUEST", "BillingMode: PAY_PER_REQUEST"),
            ("is not encrypted", properties.get("SSESpecification") == {"SSEEnabled": True}, "SSESpecification: { SSEEnabled: true }"),
        ]
        if name in caches:
            expires = properties.get("TimeToLiveSpecification", {}).get("Enabled") is True
            rules += [
                ("never forgets", expires, "TimeToLiveSpecification: { AttributeName: expires, Enabled: true }"),
                ("outlives the stack", policies == ["Delete", "Delete"], "DeletionPolicy: Delete, and UpdateReplacePolicy: Delete"),
            ]
        else:
            recovery = properties.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
            kept = all(in_prod(policy) in ("Retain", "RetainExceptOnCreate") for policy in policies)
            hint = "DeletionPolicy: Retain, and UpdateReplacePolicy: Retain"
            rules += [
                ("goes with the stack", kept, f"{hint} (if it holds no data, declare it in its function's Cargo.toml: caches = [\"{name}\"])"),
                ("cannot be restored", in_prod(recovery) is True, "PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true }"),
            ]
        wrong += [f"{name} {what}: add `{line}` to it in template.yaml" for what, holds, line in rules if not holds]
    wrong += [f"there is no table {name}, which a function declares as a cache" for name in caches - of_type(template, "AWS::DynamoDB::Table").keys()]
    return wrong


def in_prod(value: object) -> object:
    """The value in prod, where others may have a cheaper one."""
    return value["Fn::If"][1] if isinstance(value, dict) and value.get("Fn::If", [None])[0] == "IsProd" else value


def gateways(route: str) -> str:
    """A route of the local router as API Gateway writes it."""
    return re.sub(r"\{\*(\w+)\}", r"{\1+}", route)


def routes_agree(template: dict, router: dict[str, str], folders: set[str]) -> list[str]:
    """The gateway, the local router and the events have the same endpoints. Each route accepts every method."""
    wrong, routes, owners = [], {}, {}
    built = {code(function) for function in functions(template).values()}
    for name, function in functions(template).items():
        for path, method in routes_of(function):
            if owners.setdefault((path, method), name) != name:
                wrong.append(f"{owners[path, method]} and {name} both have {method} {path}: each route belongs to one function")
            if method == "ANY":
                routes[path] = code(function)
            elif method != "OPTIONS" and "Condition" not in template["Resources"][name]:
                wrong.append(f"{path} accepts only {method}: the gateway answers other methods")
            if router.get(path, code(function)) != code(function):
                wrong.append(f"{name} takes {path} from {router[path]}, which has it in CargoLambda.toml")
    for path in sorted(routes.keys() - router.keys()):
        wrong.append(f"CargoLambda.toml lacks a route of template.yaml: add `{json.dumps(local(path))} = {json.dumps(routes[path])}`")
    for path, name in sorted(router.items()):
        if name not in built:
            wrong.append(f"CargoLambda.toml sends {path} to {name}, but template.yaml has no function that is built from functions/{name}")
    for path in sorted(path for path in router.keys() - routes.keys() if router[path] in built):
        line = f"Any: {{ Type: HttpApi, Properties: {{ ApiId: !Ref Api, Path: {json.dumps(path)}, Method: ANY }} }}"
        wrong.append(f"template.yaml lacks a route of CargoLambda.toml: add `{line}` to the Events of {router[path]}")
    if missing := set(routes.values()) - folders:
        wrong.append(f"events/ has no cases of {sorted(missing)}")
    if missing := folders - built:
        wrong.append(f"template.yaml has no function with the code of {sorted(missing)}, which have cases in events/")
    return wrong


def outputs_lead_to_routes(template: dict) -> list[str]:
    """The URL of a function in the outputs is one of its routes, in which a parameter may have a value."""
    wrong = []
    for name, function in functions(template).items():
        output = f"{name.removesuffix('Function')}Url"
        value = next(walk(template["Outputs"].get(output, {}).get("Value")), {})
        text, own = value["Fn::Sub"] if isinstance(value.get("Fn::Sub"), list) else ("", {})
        path = text.removeprefix("${Api}").replace("${Path}", str(own.get("Path")))
        routes = sorted({path for path, method in routes_of(function) if method != "OPTIONS"})
        if text.startswith("${Api}") and not function_at(local(path), {local(route): name for route in routes}):
            paths = " or ".join(f"`Path: {json.dumps(route)}`" for route in routes)
            line = f"write {paths} for it into the map Functions" if routes else "remove it from the loop Urls"
            wrong.append(f"{output} leads to {path}, which is no route of {code(function)}: {line} in template.yaml")
    return wrong


def callers_need_a_token(template: dict, declared: dict[str, dict]) -> list[str]:
    """With an issuer, every route needs its token, except OPTIONS, which browsers send without, and those that their
    function declares public."""
    wrong = []
    body = template["Resources"]["Api"]["Properties"]["DefinitionBody"]
    scheme = body["components"]["Fn::If"]
    token = {"Fn::If": ["HasJwt", [{"jwt": []}], NO_VALUE]}
    if scheme[0] != "HasJwt" or scheme[1].get("securitySchemes", {}).keys() != {"jwt"} or scheme[2] != NO_VALUE:
        wrong.append(f"the authorizer must depend on HasJwt, but is {scheme}")
    routes = {route: code(function) for function in functions(template).values() for route in routes_of(function)}
    public = {(path, name) for name, function in declared.items() for path in function.get("public", [])}
    for (path, method), name in routes.items():
        key = "x-amazon-apigateway-any-method" if method == "ANY" else method.lower()
        security = body["paths"].get(path, {}).get(key, {}).get("security")
        if method == "OPTIONS":
            continue
        if (path, name) in public and security:
            wrong.append(f"{method} {path} needs a token, although functions/{name}/Cargo.toml declares it public")
        if (path, name) not in public and security != token:
            line = f'"{path}": {{ {key}: {{ security: !If [HasJwt, [{{ jwt: [] }}], !Ref AWS::NoValue] }} }}'
            declare = add(name, f"public = {json.dumps([path])}")
            wrong.append(
                f"{method} {path} needs no token: add `{line}` to the paths of Api in template.yaml, or, if everybody may"
                f" call it, {declare}"
            )
        if method == "ANY" and (path, name) not in public and (path, "OPTIONS") not in routes:
            wrong.append(f"OPTIONS {path} needs a token: add an event with this path and Method: OPTIONS to its function")
    for path, name in public - {(path, name) for (path, _), name in routes.items()}:
        wrong.append(f"functions/{name}/Cargo.toml declares {path} public, which is no route of {name}")
    for path, methods in body["paths"].items():
        for method in methods:
            if (path, "ANY" if "any" in method else method.upper()) not in routes:
                what = "any method" if "any" in method else method.upper()
                wrong.append(f"the paths of Api in template.yaml have {path}, which no function has among its Events for {what}")
    return wrong


def schedules_are_cron_of_aws(template: dict) -> list[str]:
    """A cron expression has six fields, of which the third or the fifth is `?`: AWS refuses others, in a deployment."""
    written = {text for node in walk(template["Resources"]) for value in node.values() for text in listed(value) if isinstance(text, str)}
    return [
        f"AWS refuses {text}: write the minute, hour, day of the month, month, day of the week and year, and `?` for one of the two"
        " kinds of day, as in `cron(0 3 * * ? *)`"
        for text in sorted(written)
        if text.startswith("cron(") and (len(fields := text[5:].rstrip(")").split()) != 6 or [fields[2], fields[4]].count("?") != 1)
    ]


def urls_are_signed_and_stream_as_told(template: dict, declared: dict[str, dict]) -> list[str]:
    """A function URL takes only signed requests, unless its function declares it public, and streams if and only if the
    function is told so: it cannot see that, and an answer in the wrong form is garbage."""
    wrong = []
    for name, function in functions(template).items():
        if not (url := function.get("FunctionUrlConfig")):
            continue
        signed, public = url.get("AuthType") == "AWS_IAM", declared.get(code(function), {}).get("public-url", False)
        if not signed and not public:
            wrong.append(f"anybody may call the URL of {name}: set its AuthType to AWS_IAM, or {add(code(function), 'public-url = true')}")
        if signed and public:
            wrong.append(f"the URL of {name} takes only signed requests, although functions/{code(function)}/Cargo.toml declares it public")
        mode = url.get("InvokeMode", "BUFFERED")
        told = function.get("Environment", {}).get("Variables", {}).get("INVOKE_MODE", "BUFFERED")
        if mode != told:
            wrong.append(f"the InvokeMode of the URL of {name} is {mode}, but the function is told {told}: set its variable INVOKE_MODE to {mode}")
    return wrong


def accepts(parameter: dict, value: object) -> bool:
    """Returns whether CloudFormation accepts `value` for it."""
    text = str(value)
    return (
        re.fullmatch(parameter.get("AllowedPattern", ".*"), text) is not None
        and text in map(str, parameter.get("AllowedValues", [text]))
        and len(text) <= parameter.get("MaxLength", 4096)
        and ("MinValue" not in parameter or float(text) >= parameter["MinValue"])
    )
