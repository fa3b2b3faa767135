import { expect } from 'chai';
import { type KVClusterSpec, parseKVCluster } from '../../../model/kvcluster.ts';
import type { Condition, ConditionType } from '../../../model/kvcluster-status.ts';
import {
  asConditions,
  countMisses,
  findConditions,
  type HealthFacts,
  transitionsOf,
} from '../../../operator/conditions.ts';
import { blocked, proceed, requeueAfter } from '../../../operator/steps/step.ts';
import { members, viewOf, viewsOfPod } from '../../support/operator-fixtures.ts';

function specOf(spec: object = {}): KVClusterSpec {
  const parsed = parseKVCluster({
    apiVersion: 'kvcluster.io/v1alpha1',
    kind: 'KVCluster',
    metadata: { name: 'demo' },
    spec,
  });
  if (!parsed.ok) throw new Error(parsed.problems.join());
  return parsed.cluster.spec;
}

const inOrder: HealthFacts = {
  spec: specOf(),
  availability: { status: 'True', reason: 'QuorumReachable', message: 'yes' },
  down: [],
  initialised: true,
  progress: proceed,
  backupStep: proceed,
  backup: undefined,
};

function found(facts: Partial<HealthFacts>): Record<ConditionType, string> {
  const findings = findConditions({ ...inOrder, ...facts });
  return Object.fromEntries(
    findings.map(({ type, status, reason }) => [type, `${status} ${reason}`]),
  ) as Record<ConditionType, string>;
}

describe('conditions', () => {
  it('are all good for a cluster in order', () => {
    expect(found({})).to.deep.equal({
      Ready: 'True Serving',
      Available: 'True QuorumReachable',
      Progressing: 'False Reconciled',
      Degraded: 'False AsExpected',
      BackupHealthy: 'Unknown NoSchedule',
    });
  });

  it('say what two copies do not bear, in the status and in the Event', () => {
    const warning = /With two copies, a node that is down or drained pauses QUORUM operations/;
    const messageFor = (spec: object): string | undefined =>
      findConditions({ ...inOrder, spec: specOf(spec) }).find(({ type }) => type === 'Available')?.message;
    expect(messageFor({ replicas: 2 })).to.match(warning);
    expect(messageFor({ replicas: 2, replicationFactor: 2 })).to.match(warning);
    expect(messageFor({ replicas: 1 })).not.to.match(warning);
    expect(messageFor({ replicas: 3 })).not.to.match(warning);

    const stamp = { observedGeneration: 1, lastTransitionTime: '' };
    const before = {
      type: 'Available',
      status: 'False',
      reason: 'NoNodeRunning',
      message: '',
      ...stamp,
    } as const;
    const findings = findConditions({ ...inOrder, spec: specOf({ replicas: 2 }) });
    const after = asConditions(findings, [before], { generation: 1, now: '' });
    expect(transitionsOf([before], after)).to.have.length(1);
    expect(transitionsOf([before], after)[0]?.message).to.match(warning);
  });

  it('say MemberDown and not Ready, but still Available, when a node is down', () => {
    const result = found({ down: [viewOf('demo-1', { pod: null, answer: null })] });
    expect(result).to.include({ Ready: 'False MemberDown', Degraded: 'True MemberDown' });
    expect(result.Available).to.match(/^True/);
  });

  it('call nothing degraded before the cluster has started', () => {
    const starting = requeueAfter(1, 'Bootstrapping', 'waiting');
    const down = [viewOf('demo-1', { pod: null, answer: null })];
    expect(found({ initialised: false, progress: starting, down })).to.include({
      Ready: 'False Bootstrapping',
      Progressing: 'True Bootstrapping',
      Degraded: 'False AsExpected',
    });
  });

  it('say what blocks', () => {
    expect(found({ progress: blocked('NameConflict', 'Service demo') })).to.include({
      Ready: 'False NameConflict',
      Progressing: 'False Blocked',
      Degraded: 'True NameConflict',
    });
  });

  it('say Paused, and stay Ready', () => {
    expect(found({ spec: specOf({ paused: true }) })).to.include({
      Progressing: 'False Paused',
      Ready: 'True Serving',
    });
  });

  it('are not Ready while nobody can be asked', () => {
    const availability = { status: 'Unknown', reason: 'NodesUnreachable', message: '' } as const;
    expect(found({ availability })).to.include({ Ready: 'False NodesUnreachable' });
  });

  it('report a schedule that the CronJob refuses, while the data path goes on', () => {
    const spec = specOf({ backup: { schedule: '@daily' } });
    const result = found({ spec, backupStep: blocked('InvalidSchedule', 'no such time zone') });
    expect(result).to.include({
      Degraded: 'True InvalidSchedule',
      BackupHealthy: 'False InvalidSchedule',
      Progressing: 'False Reconciled',
    });
  });

  for (const [what, backup, expected] of [
    ['none has ended', undefined, 'Unknown NoBackupYet'],
    ['the last succeeded', { lastSuccessTime: '2030-01-02T00:00:00Z' }, 'True LastBackupSucceeded'],
    [
      'the last failed',
      { lastSuccessTime: '2030-01-02T00:00:00Z', lastFailureTime: '2030-01-03T00:00:00Z' },
      'False LastBackupFailed',
    ],
    [
      'an earlier one failed',
      { lastSuccessTime: '2030-01-04T00:00:00Z', lastFailureTime: '2030-01-03T00:00:00Z' },
      'True LastBackupSucceeded',
    ],
  ] as const) {
    it(`tell the health of backups when ${what}`, () => {
      expect(found({ spec: specOf({ backup: { schedule: '@daily' } }), backup }).BackupHealthy).to.equal(
        expected,
      );
    });
  }

  it('keep the time of the last transition while the status stays', () => {
    const findings = [{ type: 'Degraded', status: 'True', reason: 'MemberDown', message: 'x' }] as const;
    const first = asConditions(findings, [], { generation: 1, now: 'then' });
    const second = asConditions(findings, first, { generation: 2, now: 'later' });
    expect(second[0]).to.include({ lastTransitionTime: 'then', observedGeneration: 2 });
    const healed = asConditions([{ ...findings[0], status: 'False' }], second, {
      generation: 2,
      now: 'later',
    });
    expect(healed[0]?.lastTransitionTime).to.equal('later');
  });
});

describe('countMisses', () => {
  it('counts a Ready node that does not answer as down only after three looks', () => {
    const misses = new Map<string, number>();
    const look = () => countMisses(misses, [viewOf('demo-0', { answer: null })], true).length;
    expect([look(), look(), look()]).to.deep.equal([0, 0, 1]);
  });

  it('counts looks in quick succession as one', () => {
    const misses = new Map<string, number>();
    const look = (isNew: boolean) => countMisses(misses, [viewOf('demo-0', { answer: null })], isNew).length;
    expect([true, false, false, false, true, false, true].map(look)).to.deep.equal([0, 0, 0, 0, 0, 0, 1]);
  });

  it('counts a node down at once when Kubernetes says so, until it is in sync again', () => {
    const misses = new Map<string, number>();
    const look = (view: ReturnType<typeof viewOf>) => countMisses(misses, [view], true).length;
    expect(look(viewOf('demo-0', { pod: { terminating: true } }))).to.equal(1);
    expect(look(viewOf('demo-0', { answer: { inSync: false } }))).to.equal(1);
    expect(look(viewOf('demo-0'))).to.equal(0);
    expect(look(viewOf('demo-0', { answer: { inSync: false } }))).to.equal(0);
  });

  it('counts the other nodes of a pod that is not Ready for one of them as what they say', () => {
    const misses = new Map<string, number>();
    const look = (...answers: readonly (object | null)[]): readonly string[] =>
      countMisses(misses, viewsOfPod('demo-0', { pod: { ready: false }, answers }), true).map(
        ({ nodeId }) => nodeId,
      );
    expect([look({}, null), look({}, null), look({}, null)]).to.deep.equal([[], [], ['demo-0-w1']]);
    expect(look({}, { ready: false })).to.deep.equal(['demo-0-w1']);
    expect(look({}, {})).to.deep.equal([]);
  });

  it('counts all nodes of a pod down at once that is being deleted', () => {
    const leaving = viewsOfPod('demo-0', { pod: { terminating: true } });
    expect(countMisses(new Map(), leaving, true)).to.have.length(2);
  });

  it('forgets nodes that are gone', () => {
    const misses = new Map(members.map((name) => [name as string, 3]));
    countMisses(misses, [viewOf('demo-0')], true);
    expect(misses.size).to.equal(0);
  });
});

describe('transitionsOf', () => {
  const condition = (type: ConditionType, status: Condition['status'], reason = 'R'): Condition => ({
    type,
    status,
    reason,
    message: 'm',
    lastTransitionTime: '',
  });
  const of = (before: Condition[], after: Condition[]) =>
    transitionsOf(before, after).map(({ type, reason }) => `${type} ${reason}`);

  it('gives one Event for each condition that turned', () => {
    const before = [condition('Available', 'True'), condition('Degraded', 'False')];
    expect(
      of(before, [condition('Available', 'False', 'A'), condition('Degraded', 'True', 'D')]),
    ).to.deep.equal(['Warning A', 'Warning D']);
    expect(of([condition('Degraded', 'True')], [condition('Degraded', 'False', 'Well')])).to.deep.equal([
      'Normal Well',
    ]);
  });

  it('gives none while the status stays, for Ready, and for a beginning in order', () => {
    expect(of([condition('Degraded', 'True', 'A')], [condition('Degraded', 'True', 'B')])).to.deep.equal([]);
    expect(of([condition('Ready', 'True')], [condition('Ready', 'False')])).to.deep.equal([]);
    expect(of([], [condition('Degraded', 'False'), condition('Available', 'False')])).to.deep.equal([]);
  });
});
