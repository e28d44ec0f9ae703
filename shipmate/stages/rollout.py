"""Roll out: one fenced patch of the Deployment, then watching it until all pods are new or it cannot succeed."""

from collections.abc import Callable
from datetime import timedelta

from shipmate.core.fence import Operation, Standing, adopt_patch, classify_fence, fence_patch, raise_fence_patch
from shipmate.core.ledger import Failed, Held, Intended, RolledOut, Superseded
from shipmate.core.pairs import blamed
from shipmate.core.precedence import yields_once_shut_out
from shipmate.core.progress import Complete, explain, is_untried, progress
from shipmate.core.progress import Failed as RolloutFailed
from shipmate.core.state import Release, State
from shipmate.core.targets import Target
from shipmate.core.views import DeploymentView
from shipmate.errors import Conflict, Misconfigured, NotAllowed, Rejected, Retryable, ShipmateError
from shipmate.ports import Cluster
from shipmate.stages.build import lost, restore
from shipmate.stages.context import Context

POLL_SECONDS = 0.2


def image_reference(release: Release, target: Target, cluster: Cluster) -> str:
    """Return the release's image by digest, as the cluster's nodes pull it."""
    if release.image is None:
        raise AssertionError(release)
    return f"{cluster.registry}/{target.release.repository}@{release.image}"


def fence_in_cluster(target: Target, cluster: Cluster) -> int:
    """Return the fence that the Deployment carries, 0 before Shipmate adopted it.

    Raises NotFound, Retryable, Misconfigured.
    """
    return cluster.deployment(target.deployment.namespace, target.deployment.name).fence or 0


type Outcome = RolledOut | Failed | Held | Intended | Superseded


def roll_out(release: Release, target: Target, state: State, context: Context) -> Outcome:
    """Return what became of an intended release; `Intended` again where it needs a higher fence.

    Where the API server refuses this release, and something was published meanwhile, it is superseded; so is one in
    lasting trouble where a person wants something else. It is shut out first: no other worker patches it in.

    Raises Retryable, Ambiguous, Conflict, NotFound, NotAllowed, Invalid, Misconfigured, and Rejected if the image is
    lost, cannot be built again, and was not patched in: nothing is to be undone, and nobody patches it in any more.
    A rollback fails then, and what it was to undo still is to be.
    """
    cluster = context.cluster
    wish = yields_once_shut_out(state, release)
    if wish is not None and _shut_out_unless_in(release, target, state, cluster) is None:
        return Superseded(**context.stamp(), release=release.number, message=wish)
    try:
        _restore(release, target, state, context)
    except Rejected as error:
        is_in = _shut_out_unless_in(release, target, state, cluster) is not None
        if not is_in and release.is_rollback:
            return lost(release, target, str(error), context)
        if not is_in:
            raise
        if not release.is_rollback:  # of a rollback the nodes may have it, and nothing undoes one
            return _failed(release, state, RolloutFailed(error.reason, str(error), is_untried=True), context)
    try:
        view = _patched(release, target, state, cluster)
    except (NotAllowed, Misconfigured) as error:
        if release.is_rollback or release.trigger == "request" or not state.publications:
            raise
        view = _shut_out_unless_in(release, target, state, cluster)
        if view is None:
            message = f"something was published while the API server refused this release: {error}"
            return Superseded(**context.stamp(), release=release.number, message=message)
    if isinstance(view, RolloutFailed):
        return _failed(release, state, view, context)
    if isinstance(view, DeploymentView):
        return _watched(view, release, target, state, context)
    hold = state.hold_on(release.pair)
    if hold is not None and not release.is_rollback:
        message = f"{hold.words} came before the patch: {hold.reason}"
        return Held(**context.stamp(), release=release.number, hold=hold.id, message=message)
    fence = max(state.fence, fence_in_cluster(target, cluster)) + 1
    return Intended(**context.stamp(), release=release.number, fence=fence)


def _restore(release: Release, target: Target, state: State, context: Context) -> None:
    """Make sure of the image. What is patched in goes on while the registry is away: the nodes may have it."""
    try:
        restore(release, target, state, context)
    except Retryable:
        where = target.deployment
        if not _is_applied(context.cluster.deployment(where.namespace, where.name), release):
            raise


def _watched(
    view: DeploymentView, release: Release, target: Target, state: State, context: Context
) -> RolledOut | Failed:
    """Return how the rollout of a release that was patched in ended."""
    where, cluster, clock = target.deployment, context.cluster, context.clock
    deadline = clock.now() + timedelta(seconds=target.rollout_within_seconds)
    while True:
        if not _is_applied(view, release):
            raise Conflict(f"somebody else changed the Deployment while {release.name} rolled out")
        pods = cluster.pods(where.namespace, view.selector)
        seen = progress(view, pods)
        if view.replicas == 0:
            raise Retryable(
                f"Deployment {where.namespace}/{where.name} is scaled to 0, so nobody can be answered by "
                f"{release.name}: kubectl scale deployment/{where.name} -n {where.namespace} --replicas=2"
            )
        if isinstance(seen, Complete):  # old pods may still finish their last requests; no new one reaches them
            return RolledOut(**context.stamp(), release=release.number)
        if isinstance(seen, RolloutFailed):
            return _failed(release, state, explain(seen, log=log_of(seen.pod, target, cluster)), context)
        if clock.now() > deadline:
            message = f"not rolled out within {target.rollout_within_seconds:.0f} s: {seen.message}"
            late = RolloutFailed("RolloutDeadline", message, is_untried=is_untried(view, pods))
            return _failed(release, state, late, context)
        context.progress(seen.message)
        clock.sleep(POLL_SECONDS)
        view = cluster.deployment(where.namespace, where.name)


def _patched(release: Release, target: Target, state: State, cluster: Cluster) -> DeploymentView | RolloutFailed | None:
    """Return the Deployment after it took this release, None if a higher fence shuts the release out.

    A fence that the ledger handed out since, to a hold, shuts out a release that is not patched in yet, whether or not
    the Deployment carries it already. Called again after a crash or a lost reply, it finds the patch made.
    """
    fence = _fence(release)

    def patch(view: DeploymentView) -> list[Operation]:
        if fence < state.fence:
            # a hold is on record and not yet on the Deployment: bring it there, so that no other worker patches in now
            return raise_fence_patch(view, expected_fence=view.fence or 0, new_fence=state.fence)
        return fence_patch(
            view,
            expected_fence=view.fence or 0,
            new_fence=fence,
            container=target.deployment.container,
            image=image_reference(release, target, cluster),
            pair=release.pair.key,
            release=release.name,
        )

    found = _under_fence(release, target, cluster, patch)
    if found is Standing.APPLIED:
        message = f"somebody changed the Deployment back while {release.name} rolled out"
        return RolloutFailed("ChangedByOthers", message)
    return found if isinstance(found, DeploymentView) else None


def _shut_out_unless_in(release: Release, target: Target, state: State, cluster: Cluster) -> DeploymentView | None:
    """Return the Deployment if it took this release before; None once the release is shut out.

    Its fence is raised above the release's: then a worker that slept cannot patch the release in later, nor take the
    fence for its patch.
    """
    new_fence = max(state.fence, _fence(release) + 1)

    def patch(view: DeploymentView) -> list[Operation]:
        return raise_fence_patch(view, expected_fence=view.fence or 0, new_fence=new_fence)

    found = _under_fence(release, target, cluster, patch)
    return found if isinstance(found, DeploymentView) else None


def _under_fence(
    release: Release, target: Target, cluster: Cluster, patch: Callable[[DeploymentView], list[Operation]]
) -> DeploymentView | Standing:
    """Return the Deployment if it has this release, else how its fence stands once nothing is to be patched any more.

    As long as the release's fence outranks the Deployment's, `patch` says what is tried.
    """
    where = target.deployment
    for _ in range(5):
        view = cluster.deployment(where.namespace, where.name)
        if _is_applied(view, release):
            return view
        standing = classify_fence(view.fence, _fence(release))
        if standing in (Standing.APPLIED, Standing.SUPERSEDED):
            return standing
        operations = adopt_patch(view) if standing is Standing.UNADOPTED else patch(view)
        try:
            cluster.patch_deployment(where.namespace, where.name, operations)
        except Conflict:
            continue  # read again and classify: never repeat the patch blindly
    raise Retryable("the Deployment changes faster than it can be patched")


def _fence(release: Release) -> int:
    if release.fence is None:
        raise AssertionError(release)
    return release.fence


def _is_applied(view: DeploymentView, release: Release) -> bool:
    return view.pair == release.pair.key and view.asks_for(release.name, release.image)


def _failed(release: Release, state: State, seen: RolloutFailed, context: Context) -> Failed:
    return Failed(
        **context.stamp(),
        release=release.number,
        stage="rollout",
        reason=seen.reason,
        message=seen.message,
        quarantine=() if release.is_rollback or seen.is_nobodys_fault else blamed(state, release.pair),
    )


def log_of(pod: str | None, target: Target, cluster: Cluster) -> str:
    """Return the end of what a pod's container logged; nothing if there is no pod, or it cannot be asked."""
    if pod is None:
        return ""
    try:
        where = target.deployment
        return cluster.pod_logs(where.namespace, pod, container=where.container, tail=10)
    except ShipmateError:
        return ""
