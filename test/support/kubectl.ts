import { existsSync } from 'node:fs';
import { run, type CommandOptions } from '../cluster/command.ts';
import { kubectlPath } from '../cluster/layout.ts';
import type { KubernetesObject, ObjectList } from './kubernetes-objects.ts';

/** YAML text of one or more documents, or objects. */
export type Manifest = string | readonly object[];

/** kubectl on one cluster and, after {@link in}, in one namespace. Failures carry what kubectl wrote to standard error. */
export class Kubectl {
  readonly kubeconfig: string;
  readonly namespace: string | undefined;

  constructor(kubeconfig: string, namespace?: string) {
    this.kubeconfig = kubeconfig;
    this.namespace = namespace;
  }

  /** The same cluster, with `--namespace` added to every call. */
  in(namespace: string): Kubectl {
    return new Kubectl(this.kubeconfig, namespace);
  }

  /** The program and arguments of a call, for whoever must start it in another way. */
  command(args: readonly string[]): { program: string; args: string[]; env: NodeJS.ProcessEnv } {
    return {
      // A cluster of one's own needs no kubectl on the machine; a foreign one may be all there is.
      program: existsSync(kubectlPath) ? kubectlPath : 'kubectl',
      args: [...(this.namespace === undefined ? [] : [`--namespace=${this.namespace}`]), ...args],
      env: { KUBECONFIG: this.kubeconfig },
    };
  }

  /** Standard output. @throws CommandError */
  async run(args: readonly string[], options: CommandOptions = {}): Promise<string> {
    const { program, args: all, env } = this.command(args);
    return run(program, all, { ...options, env: { ...options.env, ...env } });
  }

  /** Standard output of a call with `--output=json`, parsed; the caller says what it is. */
  async json<T>(args: readonly string[]): Promise<T> {
    return JSON.parse(await this.run([...args, '--output=json'])) as T;
  }

  async get<T extends KubernetesObject>(kind: string, name: string): Promise<T> {
    return this.json<T>(['get', kind, name]);
  }

  /** undefined when there is no such object. */
  async find<T extends KubernetesObject>(kind: string, name: string): Promise<T | undefined> {
    const text = await this.run(['get', kind, name, '--ignore-not-found', '--output=json']);
    return text.trim() === '' ? undefined : (JSON.parse(text) as T);
  }

  async list<T extends KubernetesObject>(kind: string, ...args: string[]): Promise<T[]> {
    return (await this.json<ObjectList<T>>(['get', kind, ...args])).items;
  }

  /** `kubectl apply` of the manifest, with arguments such as `--server-side`. */
  async apply(manifest: Manifest, ...args: string[]): Promise<string> {
    return this.run(['apply', '--filename=-', ...args], { input: textOf(manifest) });
  }

  /** `kubectl delete` of the manifest's objects; those that are gone already count as deleted. */
  async delete(manifest: Manifest, ...args: string[]): Promise<string> {
    const all = ['delete', '--filename=-', '--ignore-not-found', ...args];
    return this.run(all, { input: textOf(manifest), timeoutMs: 120_000 });
  }

  /** Runs a command in a container and gives its standard output. */
  async exec(pod: string, command: readonly string[], options: CommandOptions = {}): Promise<string> {
    const stdin = options.input === undefined ? [] : ['--stdin'];
    return this.run(['exec', ...stdin, pod, '--', ...command], options);
  }

  async logs(pod: string, ...args: string[]): Promise<string> {
    return this.run(['logs', pod, ...args]);
  }
}

function textOf(manifest: Manifest): string {
  if (typeof manifest === 'string') return manifest;
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifest });
}
