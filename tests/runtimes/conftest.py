from tests.runtimes.fixtures import cri_runtime, cri_session, docker_runtime, docker_session

__all__ = ["cri_runtime", "cri_session", "docker_runtime", "docker_session"]
